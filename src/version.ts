/** As in package.json; `test/version.test.ts` holds them together. */
export const VERSION = '0.1.0'
