/**
 * Header names: one canonical spelling each, the compact forms (RFC 3261 §7.3.3, RFC 3841, 4028, 6665, 8224 …), and a lookup straight from the bytes
 * of a message that allocates nothing.
 */
const NAMES: readonly string[] = [
  ...[
    'Accept',
    'Accept-Contact:a',
    'Accept-Encoding',
    'Accept-Language',
    'Accept-Resource-Priority',
    'Alert-Info',
    'Allow',
    'Allow-Events:u',
  ],
  ...[
    'Answer-Mode',
    'Authentication-Info',
    'Authorization',
    'Call-ID:i',
    'Call-Info',
    'Contact:m',
    'Content-Disposition',
    'Content-Encoding:e',
  ],
  ...[
    'Content-Language',
    'Content-Length:l',
    'Content-Type:c',
    'CSeq',
    'Date',
    'Diversion',
    'Error-Info',
    'Event:o',
    'Expires',
    'Feature-Caps',
  ],
  ...[
    'Flow-Timer',
    'From:f',
    'Geolocation',
    'Geolocation-Error',
    'Geolocation-Routing',
    'History-Info',
    'Identity:y',
    'In-Reply-To',
    'Info-Package',
  ],
  ...[
    'Join',
    'Max-Breadth',
    'Max-Forwards',
    'MIME-Version',
    'Min-Expires',
    'Min-SE',
    'Organization',
    'P-Access-Network-Info',
    'P-Asserted-Identity',
  ],
  ...[
    'P-Associated-URI',
    'P-Called-Party-ID',
    'P-Charging-Function-Addresses',
    'P-Charging-Vector',
    'P-Preferred-Identity',
    'P-Visited-Network-ID',
  ],
  ...[
    'Path',
    'Priority',
    'Privacy',
    'Proxy-Authenticate',
    'Proxy-Authorization',
    'Proxy-Require',
    'RAck',
    'Reason',
    'Record-Route',
    'Recv-Info',
  ],
  ...[
    'Refer-Sub',
    'Refer-To:r',
    'Referred-By:b',
    'Reject-Contact:j',
    'Remote-Party-ID',
    'Replaces',
    'Reply-To',
    'Request-Disposition:d',
    'Require',
  ],
  ...[
    'Resource-Priority',
    'Retry-After',
    'Route',
    'RSeq',
    'Security-Client',
    'Security-Server',
    'Security-Verify',
    'Server',
    'Service-Route',
  ],
  ...[
    'Session-Expires:x',
    'Session-ID',
    'SIP-ETag',
    'SIP-If-Match',
    'Subject:s',
    'Subscription-State',
    'Supported:k',
    'Suppress-If-Match',
  ],
  ...[
    'Target-Dialog',
    'Timestamp',
    'To:t',
    'Unsupported',
    'User-Agent',
    'User-to-User',
    'Via:v',
    'Warning',
    'WWW-Authenticate',
    'Antipode-Hop',
  ],
]

/** Canonical spelling, its lower case and its compact form → canonical spelling. */
const SPELLINGS = new Map<string, string>()

/** Open hash over lower-case bytes: `hashOf(name) & MASK` → the names that share it. */
const MASK = 1023
const BUCKETS: (readonly { canonical: string; lower: Uint8Array }[] | undefined)[] = new Array(MASK + 1).fill(undefined)

const step = (hash: number, byte: number): number => (Math.imul(hash, 31) + (byte | 32)) | 0

for (const entry of NAMES) {
  const [canonical = '', compact] = entry.split(':')
  for (const spelling of compact === undefined ? [canonical] : [canonical, compact]) {
    const lower = spelling.toLowerCase()
    SPELLINGS.set(spelling, canonical).set(lower, canonical).set(lower.toUpperCase(), canonical)
    const bytes = Buffer.from(lower, 'latin1')
    let hash = 0
    for (const byte of bytes) hash = step(hash, byte)
    BUCKETS[hash & MASK] = [...(BUCKETS[hash & MASK] ?? []), { canonical, lower: bytes }]
  }
}

/** The canonical spelling of a known name in any spelling; an unknown name as it is. */
export function canonicalName(name: string): string {
  return SPELLINGS.get(name) ?? SPELLINGS.get(name.toLowerCase()) ?? name
}

/** What names are compared by: the canonical spelling of a known name, lower case of any other. */
export function headerKey(name: string): string {
  const known = SPELLINGS.get(name)
  if (known !== undefined) return known
  const lower = name.toLowerCase()
  return SPELLINGS.get(lower) ?? lower
}

/** The canonical spelling of the name at `bytes[start, end)`, or undefined when the table does not know it. The bytes are tokens. */
export function knownNameInBytes(bytes: Uint8Array, start: number, end: number): string | undefined {
  let hash = 0
  for (let i = start; i < end; i++) hash = step(hash, bytes[i]!)
  const bucket = BUCKETS[hash & MASK]
  if (bucket === undefined) return undefined
  const length = end - start
  candidates: for (const { canonical, lower } of bucket) {
    if (lower.length !== length) continue
    for (let i = 0; i < length; i++) {
      const byte = bytes[start + i]!
      // Only letters have another case: `-` is 0x2d, and 0x0d is no token.
      if ((byte >= 65 && byte <= 90 ? byte | 32 : byte) !== lower[i]) continue candidates
    }
    return canonical
  }
  return undefined
}
