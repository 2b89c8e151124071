/**
 * The shared verdict as a pure function of fresh reports: who is alive, who is dead, by vote of a configured electorate.
 *
 * The electorate's size is configuration: silence, maintenance or being forgotten never shrinks it. A strict majority of a fixed set exists on at
 * most one side of a cut between regions, so two sides cannot call each other dead. (A region that is itself torn in two, with a half on either side,
 * can vote on both: inside a region the network is taken to be whole.)
 *
 * The side that hears too few votes decides nothing and keeps what was agreed last. A decision never depends on history where enough votes are
 * heard: nodes with the same reports agree.
 */
export type Verdict = 'alive' | 'dead' | 'unknown'

export interface Layout {
  readonly regions: readonly { readonly name: string; readonly nodes: readonly string[] }[]
  /** Names of the regions that vote. */
  readonly electorate: readonly string[]
}

/** Fresh reports only: observer node → target node → what the observer's own probes say. An observer that is missing is silent. */
export type Reports = ReadonlyMap<string, ReadonlyMap<string, Verdict>>

export interface Verdicts {
  readonly regions: ReadonlyMap<string, Verdict>
  readonly nodes: ReadonlyMap<string, Verdict>
}

/** Strictly more than half; for an empty set a number that no count of votes reaches. */
export const majorityOf = (count: number): number => Math.floor(count / 2) + 1

/** What a region sees of one node: alive if any of its nodes reaches it, dead if none does and one at least has judged it, else unknown. */
export function regionSees(voters: readonly string[], node: string, reports: Reports): Verdict {
  let seen: Verdict = 'unknown'
  for (const voter of voters) {
    const evidence = reports.get(voter)?.get(node) ?? 'unknown'
    if (evidence === 'alive') return 'alive'
    if (evidence === 'dead') seen = 'dead'
  }
  return seen
}

/** A region's vote on another (or on itself): alive if it sees any node of it alive, dead if it sees all of them dead, else unknown. */
export function regionVote(voters: readonly string[], targets: readonly string[], reports: Reports): Verdict {
  let dead = 0
  for (const node of targets) {
    const seen = regionSees(voters, node, reports)
    if (seen === 'alive') return 'alive'
    if (seen === 'dead') dead++
  }
  return dead > 0 && dead === targets.length ? 'dead' : 'unknown'
}

interface Tally {
  readonly alive: number
  readonly dead: number
}

const tally = (votes: readonly Verdict[]): Tally => {
  let alive = 0
  let dead = 0
  for (const vote of votes) {
    if (vote === 'alive') alive++
    else if (vote === 'dead') dead++
  }
  return { alive, dead }
}

/**
 * The verdict on a region from the votes of the electorate, one each, unknown for a silent region. `unknown` as the result means "not decided": too
 * few are heard, and the last agreed verdict stands. With two regions alone nothing is ever dead: the one that died cannot vote.
 */
export function judgeRegion(votes: readonly Verdict[]): Verdict {
  const { alive, dead } = tally(votes)
  const majority = majorityOf(votes.length)
  if (dead >= majority) return 'dead'
  return alive + dead >= majority ? 'alive' : 'unknown'
}

export interface NodeVotes {
  /** What each configured sibling says; unknown for a silent one. */
  readonly siblings: readonly Verdict[]
  /** What each *other* region of the electorate sees. */
  readonly others: readonly Verdict[]
  /** What the node's own region sees, the node's word about itself included; undefined when that region is not in the electorate. */
  readonly own: Verdict | undefined
  /** The verdict on the node's region. */
  readonly region: Verdict
}

/**
 * The verdict on a node. Its voters are its configured siblings and one vote of each other region of the electorate. It is dead when
 *
 * 1. a strict majority of these voters says dead, and among them is a sibling, or as many other regions as make a majority of the electorate
 *    (otherwise the only node of one of two regions would be dead as soon as the WAN between them is); or
 * 2. nobody says alive and a majority of the electorate's regions, its own included, says dead (siblings that died too cannot vote: of six nodes the
 *    sixth and two regions must be enough); or
 * 3. its region is dead.
 *
 * It is alive when it is not dead, somebody says alive, and a majority is heard, of its voters or of the electorate's regions. Otherwise it is not
 * decided (`unknown`) and the last agreed verdict stands. So:
 *
 *   nodes in its region, electorate │ voters            │ dead when
 *   1 node,  1 region               │ none              │ never
 *   2 nodes, 1 region               │ sibling           │ the sibling says so
 *   1 node,  2 regions              │ other region      │ never: its own region would have to say so
 *   2 nodes, 2 regions              │ sibling, other    │ both say so
 *   1 node,  3 regions              │ 2 others          │ both say so
 *   2 nodes, 3 regions              │ sibling, 2 others │ two of the three say so
 *   4 nodes, 3 regions              │ 3 sibl., 2 others │ three of the five say so
 */
export function judgeNode(votes: NodeVotes): Verdict {
  const siblings = tally(votes.siblings)
  const others = tally(votes.others)
  const voters = votes.siblings.length + votes.others.length
  const electorate = votes.others.length + (votes.own === undefined ? 0 : 1)
  const dead = siblings.dead + others.dead
  const alive = siblings.alive + others.alive
  const regionsDead = others.dead + (votes.own === 'dead' ? 1 : 0)
  const regionsHeard = others.alive + others.dead + (votes.own === 'alive' || votes.own === 'dead' ? 1 : 0)

  if (votes.region === 'dead') return 'dead'
  if (dead >= majorityOf(voters) && (siblings.dead > 0 || others.dead >= majorityOf(electorate))) return 'dead'
  if (alive === 0 && votes.own !== 'alive' && electorate > 0 && regionsDead >= majorityOf(electorate)) return 'dead'

  const heard = alive + dead >= majorityOf(voters) || regionsHeard >= majorityOf(electorate)
  return heard && (alive > 0 || votes.own === 'alive') ? 'alive' : 'unknown'
}

/** Each electorate region's vote on each region: target → voter → vote. For the verdict and for people who ask why. */
export function regionVotes(layout: Layout, reports: Reports): Map<string, Map<string, Verdict>> {
  const nodesOf = new Map(layout.regions.map((region) => [region.name, region.nodes]))
  return new Map(
    layout.regions.map((target) => [
      target.name,
      new Map(layout.electorate.map((voter) => [voter, regionVote(nodesOf.get(voter) ?? [], target.nodes, reports)])),
    ]),
  )
}

/** Verdicts on everything, from fresh reports; where nothing is decided the last agreed verdict is kept. */
export function judge(layout: Layout, reports: Reports, last: Verdicts): Verdicts {
  const regions = new Map<string, Verdict>()
  const nodes = new Map<string, Verdict>()
  const nodesOf = new Map(layout.regions.map((region) => [region.name, region.nodes]))
  for (const [target, votes] of regionVotes(layout, reports)) {
    const decided = judgeRegion([...votes.values()])
    regions.set(target, decided === 'unknown' ? (last.regions.get(target) ?? 'unknown') : decided)
  }
  for (const region of layout.regions) {
    for (const node of region.nodes) {
      const decided = judgeNode({
        siblings: region.nodes.filter((n) => n !== node).map((sibling) => reports.get(sibling)?.get(node) ?? 'unknown'),
        others: layout.electorate
          .filter((voter) => voter !== region.name)
          .map((voter) => regionSees(nodesOf.get(voter) ?? [], node, reports)),
        own: layout.electorate.includes(region.name) ? regionSees(region.nodes, node, reports) : undefined,
        region: regions.get(region.name) ?? 'unknown',
      })
      nodes.set(node, decided === 'unknown' ? (last.nodes.get(node) ?? 'unknown') : decided)
    }
  }
  return { regions, nodes }
}

/** Which of the electorate's regions are heard: a fresh report of any of their nodes is there. */
export const regionsHeard = (layout: Layout, reports: Reports): string[] =>
  layout.electorate.filter(
    (name) => layout.regions.find((r) => r.name === name)?.nodes.some((node) => reports.has(node)) ?? false,
  )

export const hearsMajority = (layout: Layout, reports: Reports): boolean =>
  regionsHeard(layout, reports).length >= majorityOf(layout.electorate.length)
