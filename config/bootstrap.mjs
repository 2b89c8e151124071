// Brings what `npm start` and `npm test` need, with whatever Node.js runs npm: dependencies as the lock file has them, and Node.js 24 (the
// `node` package). Plain JavaScript without dependencies, because it runs before any of them is there.
import { execFileSync } from 'node:child_process'
import { existsSync, readFileSync, statSync } from 'node:fs'
import { fileURLToPath } from 'node:url'

const root = fileURLToPath(new URL('..', import.meta.url))
const at = (path) => `${root}${path}`
const installed = at('node_modules/.package-lock.json')
const fresh = existsSync(installed) && statSync(installed).mtimeMs >= statSync(at('package-lock.json')).mtimeMs - 1000
const run = (command, args) => {
  try {
    execFileSync(command, args, { cwd: root, stdio: ['ignore', 2, 2], shell: process.platform === 'win32' })
  } catch {
    // What went wrong stands above, in the command's own words.
    process.stderr.write(`antipode: \`${command} ${args.join(' ')}\` failed; what is needed could not be installed\n`)
    process.exit(1)
  }
}

if (!fresh) {
  process.stderr.write('antipode: installing dependencies (npm ci)\n')
  run('npm', ['ci', '--no-audit', '--no-fund', '--loglevel=error'])
}
// npm may be set to skip install scripts; the one that we need fetches the Node.js binary from the npm registry.
const node = at('node_modules/node/bin/node')
if (!existsSync(node)) run(process.execPath, [at('node_modules/node/installArchSpecificPackage.js')])
const want = JSON.parse(readFileSync(at('package.json'), 'utf8')).dependencies.node
const have = execFileSync(node, ['--version'], { encoding: 'utf8' }).trim()
if (have !== `v${want}`) {
  process.stderr.write(
    `antipode: node_modules/node is ${have}, package.json asks for v${want}; remove node_modules and try again\n`,
  )
  process.exit(1)
}
