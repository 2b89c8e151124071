import { closeSync, fsyncSync, mkdirSync, openSync, readFileSync, renameSync, writeSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { AntipodeError } from './base/errors.ts'
import { incarnationCounter, makeIncarnation } from './base/ids.ts'
import type { Random } from './base/prng.ts'

/** Replaces a file as a whole: after a crash it is the old one or the new one. Durable on return: file and directory are fsynced. */
export function writeFileDurably(path: string, text: string): void {
  const temporary = `${path}.new`
  const file = openSync(temporary, 'w', 0o600)
  try {
    writeSync(file, text)
    fsyncSync(file)
  } finally {
    closeSync(file)
  }
  renameSync(temporary, path)
  const directory = openSync(dirname(path), 'r')
  try {
    fsyncSync(directory)
  } finally {
    closeSync(directory)
  }
}

/**
 * The incarnation of this process start: the counter on disk is raised and fsynced before the number is used, so no two starts share one; the random
 * bits tell apart two starts of a node whose disk was lost.
 *
 * @param above the result is higher than this (a peer has met a higher incarnation of this node)
 */
export function nextIncarnation(stateDirectory: string, random: Random, above = 0): number {
  const path = join(stateDirectory, 'incarnation')
  try {
    mkdirSync(stateDirectory, { recursive: true })
    const text = readIfThere(path)
    const counter = text === undefined ? 0 : Number(text.trim())
    if (!Number.isSafeInteger(counter) || counter < 0 || counter >= 2 ** 20)
      throw new AntipodeError('NODE_STATE', `${path} does not hold a counter: ${text}`)
    const next = Math.max(counter, incarnationCounter(above)) + 1
    writeFileDurably(path, `${next}\n`)
    return makeIncarnation(next, random)
  } catch (error) {
    if (error instanceof AntipodeError) throw error
    throw new AntipodeError('NODE_STATE', `cannot keep the incarnation counter in ${path}`, error)
  }
}

export function readIfThere(path: string): string | undefined {
  try {
    return readFileSync(path, 'utf8')
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined
    throw error
  }
}
