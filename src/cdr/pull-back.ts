import type { Held, MirrorMessage } from './mirror-messages.ts'

interface Pull {
  readonly node: string
  readonly incarnation: number
  /** Where the mirror's copy ends. */
  readonly target: number
  from: number
  withHeader: boolean
  askedMs: number
}

export type PullOutput =
  | { readonly kind: 'send'; readonly node: string; readonly message: MirrorMessage }
  /** Groups of an old chain that a mirror gave back, not verified; answered by `handleRecovered`. */
  | {
      readonly kind: 'recover'
      readonly incarnation: number
      readonly from: number
      readonly header: Uint8Array | undefined
      readonly groups: Uint8Array
    }

const MAX_PULLS = 64
const NO_ANSWER_MS = 2000

/** Fetches what mirrors hold of our old chains and we do not: one chain at a time, range by range. FORMAT.md "Recovery" step 6. */
export class PullBack {
  readonly #pulls: Pull[] = []
  #outputs: PullOutput[] = []

  /** Chains that are not back yet. */
  get size(): number {
    return this.#pulls.length
  }

  /** @param ownCommits where our sound groups of that chain end; undefined when we have nothing of it */
  start(node: string, held: Held, ownCommits: number | undefined, nowMs: number): void {
    if ((ownCommits ?? 0) >= held.commits || this.#pulls.length >= MAX_PULLS) return
    if (this.#pulls.some((p) => p.incarnation === held.incarnation)) return
    const from = Math.max(ownCommits ?? 0, held.first)
    // Where the copy does not begin at our end, the position has to come with it.
    const withHeader = ownCommits === undefined || from > ownCommits
    this.#pulls.push({ node, incarnation: held.incarnation, target: held.commits, from, withHeader, askedMs: nowMs })
    if (this.#pulls.length === 1) this.#ask(nowMs)
  }

  handleRange(node: string, m: MirrorMessage & { readonly type: 'range' }, nowMs: number): void {
    const pull = this.#pulls[0]
    if (pull === undefined || pull.node !== node || pull.incarnation !== m.incarnation || pull.from !== m.from) return
    pull.askedMs = nowMs
    if (m.groups.length === 0) this.#end(nowMs)
    else this.#outputs.push({ kind: 'recover', incarnation: m.incarnation, from: m.from, header: m.header, groups: m.groups })
  }

  /** What was given back is on disk; or it is not, and the pull is given up until a mirror links anew. */
  handleRecovered(incarnation: number, commits: number, ok: boolean, nowMs: number): void {
    const pull = this.#pulls[0]
    if (pull?.incarnation !== incarnation) return
    if (!ok || commits >= pull.target || commits <= pull.from) {
      this.#end(nowMs)
      return
    }
    pull.from = commits
    pull.withHeader = false
    this.#ask(nowMs)
  }

  handlePeerDown(node: string, nowMs: number): void {
    const first = this.#pulls[0]
    for (let i = this.#pulls.length - 1; i >= 0; i--) if (this.#pulls[i]!.node === node) this.#pulls.splice(i, 1)
    if (this.#pulls[0] !== first) this.#ask(nowMs)
  }

  handleTimeout(nowMs: number): void {
    const pull = this.#pulls[0]
    if (pull !== undefined && nowMs - pull.askedMs >= NO_ANSWER_MS) this.#ask(nowMs)
  }

  takeOutputs(): PullOutput[] {
    const out = this.#outputs
    this.#outputs = []
    return out
  }

  #end(nowMs: number): void {
    this.#pulls.shift()
    this.#ask(nowMs)
  }

  #ask(nowMs: number): void {
    const pull = this.#pulls[0]
    if (pull === undefined) return
    pull.askedMs = nowMs
    const { node, incarnation, from, withHeader } = pull
    this.#outputs.push({ kind: 'send', node, message: { type: 'pull', incarnation, from, withHeader } })
  }
}
