/** One torture message beside what is expected of it. */
export interface TortureMessage {
  /** As the RFC calls it; RFC 5118 by its section. */
  readonly name: string
  readonly section: string
  /** What is odd about it, as the second half of a test's name. */
  readonly what: string
  readonly bytes: Buffer
  /** What `parseMessage` and `checkMessage` say of it: '' for nothing, else the code of the fault. */
  readonly code: string
  /** The status that a running node answers with over UDP when it comes from a trusted source; 0: silence. */
  readonly answer: number
  /** It goes on to a phone of ours, and the answer is the phone's. */
  readonly forwarded?: true
}

/**
 * The bytes of a message as the RFC prints it: one newline after the opening quote is not part of it, LF stands for CRLF, and what is not ASCII is
 * UTF-8.
 */
export const raw = (text: string): Buffer => Buffer.from(text.replace(/^\n/, '').replaceAll('\n', '\r\n'), 'utf8')

/** The session description that most of the INVITEs carry. */
export const sdp = (address: string, time = '0 0', origin = address): string => `v=0
o=mhandley 29739 7272939 IN IP4 ${origin}
s=-
c=IN IP4 ${address}
t=${time}
m=audio 49217 RTP/AVP 0 12
m=video 3227 RTP/AVP 31
a=rtpmap:31 LPC
`
