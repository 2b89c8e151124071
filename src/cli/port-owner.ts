import { execFile } from 'node:child_process'
import { readdirSync, readFileSync, readlinkSync } from 'node:fs'
import { isIPv4 } from 'node:net'
import { basename } from 'node:path'
import { promisify } from 'node:util'

/** The process that holds a port. */
export interface PortOwner {
  readonly pid: number
  readonly command: string
}

/** Who listens on `address:port`; undefined where the system does not say (another user's process, seen without privileges). */
export async function portOwner(address: string, port: number): Promise<PortOwner | undefined> {
  return process.platform === 'linux' ? ownerFromProc(address, port) : await ownerFromLsof(address, port)
}

/** `127.0.1.1:5060` in a message of ours, and who holds it, in words. */
export async function namePortOwner(message: string): Promise<string> {
  const match = /\[?([0-9a-f.:]*[0-9a-f])\]?:(\d{1,5})\b/i.exec(message)
  const owner = match === null ? undefined : await portOwner(match[1]!, Number(match[2]))
  return owner === undefined ? message : `${message} (by pid ${owner.pid}, ${owner.command})`
}

/** Linux: sockets with their inodes are in /proc/net, and whose they are in the descriptors of each process. */
function ownerFromProc(address: string, port: number): PortOwner | undefined {
  const inodes = new Set<string>()
  for (const table of ['tcp', 'udp', 'tcp6', 'udp6']) {
    for (const line of lines(`/proc/net/${table}`)) {
      const [, local = '', , state = '', , , , , , inode = ''] = line.trim().split(/\s+/)
      const [host = '', portHex = ''] = local.split(':')
      if (Number.parseInt(portHex, 16) !== port) continue
      // 0A listens; of UDP every state counts. A wildcard holds every address.
      if (table.startsWith('tcp') && state !== '0A') continue
      if (/^0+$/.test(host) || !isIPv4(address) || host === hexOf(address) || host.endsWith(hexOf(address))) inodes.add(inode)
    }
  }
  if (inodes.size === 0) return undefined
  for (const pid of readdirSync('/proc')) {
    if (!/^\d+$/.test(pid)) continue
    let descriptors: string[]
    try {
      descriptors = readdirSync(`/proc/${pid}/fd`)
    } catch {
      continue // gone meanwhile, or not ours to look at
    }
    for (const descriptor of descriptors) {
      if (inodes.has(socketInode(`/proc/${pid}/fd/${descriptor}`))) return { pid: Number(pid), command: programOf(pid) }
    }
  }
  return undefined
}

/** By its file: what /proc calls `comm` is a thread's name, `MainThread` for every Node.js. */
function programOf(pid: string): string {
  try {
    return basename(readlinkSync(`/proc/${pid}/exe`).replace(/ \(deleted\)$/, ''))
  } catch {
    return lines(`/proc/${pid}/comm`)[0] ?? '?'
  }
}

/** As /proc/net writes an IPv4 address: hexadecimal, in the byte order of the machine (little-endian on all that Node.js runs on, but s390x). */
const hexOf = (address: string): string =>
  address
    .split('.')
    .reverse()
    .map((byte) => Number(byte).toString(16).padStart(2, '0').toUpperCase())
    .join('')

function socketInode(path: string): string {
  try {
    return /^socket:\[(\d+)\]$/.exec(readlinkSync(path))?.[1] ?? ''
  } catch {
    return ''
  }
}

function lines(path: string): string[] {
  try {
    return readFileSync(path, 'utf8').split('\n').filter(Boolean)
  } catch {
    return []
  }
}

async function ownerFromLsof(address: string, port: number): Promise<PortOwner | undefined> {
  try {
    const { stdout } = await promisify(execFile)('lsof', ['-nP', '-Fpc', `-i@${address}:${port}`], { timeout: 3000 })
    const pid = /^p(\d+)$/m.exec(stdout)?.[1]
    return pid === undefined ? undefined : { pid: Number(pid), command: /^c(.+)$/m.exec(stdout)?.[1] ?? '?' }
  } catch {
    return undefined
  }
}
