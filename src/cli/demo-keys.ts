import { randomBytes } from 'node:crypto'
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'

const KEYS = { ANTIPODE_LINK_KEY: 'link.key', ANTIPODE_TOKEN_KEY: 'token.key', ANTIPODE_NONCE_KEY: 'nonce.key' } as const

/** The demo's cluster keys, made at its first start and kept in `<state>/demo/`, as the environment that the example files read them from. */
export function demoKeys(stateDirectory: string): Record<keyof typeof KEYS, string> {
  const directory = join(stateDirectory, 'demo')
  mkdirSync(directory, { recursive: true, mode: 0o700 })
  const read = (name: string): string => {
    const file = join(directory, name)
    try {
      // `wx`: of two demos that start at once one makes the key, and both use it.
      writeFileSync(file, `${randomBytes(32).toString('hex')}\n`, { mode: 0o600, flag: 'wx' })
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'EEXIST') throw error
    }
    return readFileSync(file, 'utf8').trim()
  }
  return {
    ANTIPODE_LINK_KEY: read(KEYS.ANTIPODE_LINK_KEY),
    ANTIPODE_TOKEN_KEY: read(KEYS.ANTIPODE_TOKEN_KEY),
    ANTIPODE_NONCE_KEY: read(KEYS.ANTIPODE_NONCE_KEY),
  }
}
