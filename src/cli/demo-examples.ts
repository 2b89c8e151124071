import { existsSync } from 'node:fs'
import { join, resolve } from 'node:path'
import { AntipodeError } from '../base/errors.ts'

/** The demo's configuration, a file per region. */
export const EXAMPLES = ['us-east.yaml', 'eu-west.yaml', 'ap-south.yaml']

/** In the sources two folders up, in a compiled package three. */
export function examplesDirectory(): string {
  const found = ['../../config/examples', '../../../config/examples']
    .map((path) => resolve(import.meta.dirname, path))
    .find((path) => existsSync(join(path, EXAMPLES[0]!)))
  if (found === undefined) throw new AntipodeError('DEMO_EXAMPLES', 'config/examples is not where this package has it')
  return found
}
