import {
  closeSync,
  fdatasyncSync,
  fsyncSync,
  ftruncateSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  readSync,
  renameSync,
  rmSync,
  statSync,
  writeSync,
} from 'node:fs'
import { dirname } from 'node:path'

/**
 * The file calls of the journal thread, synchronous: the thread has nothing else to do meanwhile. An object, so that a test can let single calls
 * fail over real files. Every call throws what node:fs throws.
 */
export interface Disk {
  /** Names in a directory, sorted; none when there is no such directory. */
  list(directory: string): string[]
  makeDirectory(directory: string): void
  read(path: string): Buffer
  /** Up to `bytes` bytes from `at` on; fewer at the end of the file. */
  readAt(path: string, at: number, bytes: number): Buffer
  size(path: string): number
  /** A new file; fails when it exists. */
  create(path: string, mode?: number): number
  open(path: string): number
  /** Writes all of it. */
  write(fd: number, bytes: Uint8Array, at: number): void
  datasync(fd: number): void
  sync(fd: number): void
  truncate(fd: number, bytes: number): void
  close(fd: number): void
  rename(from: string, to: string): void
  remove(path: string): void
  /** Makes names in it durable. */
  syncDirectory(directory: string): void
}

export const realDisk: Disk = {
  list(directory) {
    try {
      return readdirSync(directory).sort()
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === 'ENOENT') return []
      throw error
    }
  },
  makeDirectory(directory) {
    const first = mkdirSync(directory, { recursive: true, mode: 0o750 })
    // The name of a new directory is durable only when its parent was synced.
    if (first !== undefined)
      for (let d = directory; d.length >= dirname(first).length && d !== dirname(d); d = dirname(d)) this.syncDirectory(d)
  },
  read: (path) => readFileSync(path),
  readAt(path, at, bytes) {
    const fd = openSync(path, 'r')
    try {
      const out = Buffer.alloc(bytes)
      let done = 0
      while (done < bytes) {
        const n = readSync(fd, out, done, bytes - done, at + done)
        if (n === 0) break
        done += n
      }
      return out.subarray(0, done)
    } finally {
      closeSync(fd)
    }
  },
  size: (path) => statSync(path).size,
  create: (path, mode = 0o640) => openSync(path, 'wx+', mode),
  open: (path) => openSync(path, 'r+'),
  write(fd, bytes, at) {
    for (let done = 0; done < bytes.length; ) done += writeSync(fd, bytes, done, bytes.length - done, at + done)
  },
  datasync: (fd) => fdatasyncSync(fd),
  sync: (fd) => fsyncSync(fd),
  truncate: (fd, bytes) => ftruncateSync(fd, bytes),
  close: (fd) => closeSync(fd),
  rename: (from, to) => renameSync(from, to),
  remove: (path) => rmSync(path, { force: true }),
  syncDirectory(directory) {
    const fd = openSync(directory, 'r')
    try {
      fsyncSync(fd)
    } finally {
      closeSync(fd)
    }
  },
}
