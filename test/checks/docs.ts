/** All checks of the docs at once, for people who write them: `node test/checks/docs.ts`. Build first; code is checked against dist. */
import { docsCode } from './docs-code.ts'
import { docsErrors } from './docs-errors.ts'
import { docsLinks } from './docs-links.ts'
import { type Check, standalone } from './report.ts'
import { trackedFiles } from './tracked-files.ts'

export const docs: readonly Check[] = [docsCode, docsLinks, docsErrors, trackedFiles]

if (import.meta.main) {
  for (const check of docs) {
    console.log(`\n== ${check.name}: ${check.proves}`)
    const before = process.exitCode
    await standalone(check)
    process.exitCode ||= before
  }
}
