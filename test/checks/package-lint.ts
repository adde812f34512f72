/**
 * What npm would publish, judged as npm would publish it: from the packed tarballs, since `workspace:` ranges and `files` only take effect
 * there. publint looks at the manifest, attw at whether every module resolution finds the types. CommonJS users load the modules by
 * `require(esm)`, hence the profile `esm-only`.
 */
import { readFileSync } from 'node:fs'
import { publint } from 'publint'
import { formatMessage } from 'publint/utils'
import { tarballs } from '../consumer/pack.ts'
import { execute, tail, tool } from './execute.ts'
import { type Check, standalone } from './report.ts'

export const publintCheck: Check = {
  name: 'publint',
  proves: 'every packed manifest is right for npm',
  async run(report) {
    for (const { name, manifest, tarball } of await tarballs()) {
      const bytes = readFileSync(tarball)
      const pack = { tarball: bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + bytes.byteLength) as ArrayBuffer }
      const { messages, pkg } = await publint({ pack, strict: true })
      for (const message of messages) {
        const text = formatMessage(message, pkg ?? manifest, { color: false }) ?? message.code
        if (message.type === 'suggestion') report.note(`${name}: ${text}`)
        else report.fail(`${name}: ${text}`)
      }
    }
  },
}

export const attwCheck: Check = {
  name: 'attw',
  proves: 'the types of every package resolve as its code does',
  async run(report) {
    for (const { name, tarball } of await tarballs()) {
      const args = [tarball, '--profile', 'esm-only', '--format', 'table', '--no-emoji', '--no-color']
      const { code, output } = await execute(tool('attw'), args, { timeout: 120_000 })
      if (code !== 0) report.fail(`${name}: attw ended with ${code ?? 'a signal'}\n${tail(output)}`)
    }
  },
}

if (import.meta.main) {
  await standalone(publintCheck)
  await standalone(attwCheck)
}
