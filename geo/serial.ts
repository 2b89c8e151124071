/**
 * The zone's serial, one for all regions and monotone: seconds since the epoch × 16 + the region's number, as a 32-bit number.
 *
 * RFC 1982: serials are compared around the circle of 2^32, so only differences count. Seconds × 16 pass 2^32 every 2^28 s (8.5 years) and wrap; two
 * serials compare rightly as long as they were made within 2^27 s (4.25 years) of each other, far longer than a secondary's expire time. The low four
 * bits keep two regions that change in the same second apart (of more than 16 regions some share a number, which costs at worst one refresh).
 */
export const SERIAL_PER_SECOND = 16

export const serialOf = (nowMs: number, regionNumber: number): number =>
  ((Math.floor(nowMs / 1000) * SERIAL_PER_SECOND) % 2 ** 32) + (regionNumber % SERIAL_PER_SECOND)

/** RFC 1982 §3.2: whether `a` comes after `b`. Undefined by the RFC at a distance of exactly 2^31: false both ways. */
export const serialAfter = (a: number, b: number): boolean => {
  const distance = (a - b) >>> 0
  return distance !== 0 && distance < 2 ** 31
}

/** The serial of a change made now: the clock's, or when the highest known is not below it the next one of this region above that. */
export function nextSerial(highest: number, nowMs: number, regionNumber: number): number {
  const byClock = serialOf(nowMs, regionNumber)
  if (highest === 0 || serialAfter(byClock, highest)) return byClock
  const base = highest - (highest % SERIAL_PER_SECOND)
  const candidate = (base + (regionNumber % SERIAL_PER_SECOND)) >>> 0
  return serialAfter(candidate, highest) ? candidate : (candidate + SERIAL_PER_SECOND) >>> 0
}

/** How many seconds a serial lies ahead of the clock; negative when behind. */
export const serialAheadS = (serial: number, nowMs: number): number => {
  const distance = (serial - serialOf(nowMs, 0)) >>> 0
  return (distance < 2 ** 31 ? distance : distance - 2 ** 32) / SERIAL_PER_SECOND
}
