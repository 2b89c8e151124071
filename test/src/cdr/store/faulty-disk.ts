import { type Disk, realDisk } from '../../../../src/cdr/store/disk.ts'

/** The real disk, of which chosen calls fail: as raft-wal's `failNextWrite` and `failNextSync`. */
export class FaultyDisk implements Disk {
  /** Calls to come that fail, by kind. */
  readonly fail = { write: 0, datasync: 0, create: 0, syncDirectory: 0 }
  /** A write that fails leaves this many bytes behind. */
  leaveBytes = 0
  readonly calls = { write: 0, datasync: 0, create: 0 }

  #due(kind: keyof FaultyDisk['fail']): boolean {
    if (this.fail[kind] <= 0) return false
    this.fail[kind]--
    return true
  }

  list = (directory: string): string[] => realDisk.list(directory)
  makeDirectory = (directory: string): void => realDisk.makeDirectory(directory)
  read = (path: string): Buffer => realDisk.read(path)
  readAt = (path: string, at: number, bytes: number): Buffer => realDisk.readAt(path, at, bytes)
  size = (path: string): number => realDisk.size(path)
  open = (path: string): number => realDisk.open(path)
  sync = (fd: number): void => realDisk.sync(fd)
  truncate = (fd: number, bytes: number): void => realDisk.truncate(fd, bytes)
  close = (fd: number): void => realDisk.close(fd)
  rename = (from: string, to: string): void => realDisk.rename(from, to)
  remove = (path: string): void => realDisk.remove(path)

  create(path: string, mode?: number): number {
    this.calls.create++
    if (this.#due('create')) throw Object.assign(new Error('no space left on device'), { code: 'ENOSPC' })
    return realDisk.create(path, mode)
  }

  write(fd: number, bytes: Uint8Array, at: number): void {
    this.calls.write++
    if (this.#due('write')) {
      realDisk.write(fd, bytes.subarray(0, this.leaveBytes), at)
      throw Object.assign(new Error('input/output error'), { code: 'EIO' })
    }
    realDisk.write(fd, bytes, at)
  }

  datasync(fd: number): void {
    this.calls.datasync++
    if (this.#due('datasync')) throw Object.assign(new Error('input/output error'), { code: 'EIO' })
    realDisk.datasync(fd)
  }

  syncDirectory(directory: string): void {
    if (this.#due('syncDirectory')) throw Object.assign(new Error('input/output error'), { code: 'EIO' })
    realDisk.syncDirectory(directory)
  }
}
