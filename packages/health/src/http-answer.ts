/** What an answer must look like: status, fields, text. */
import type { IncomingMessage } from 'node:http'
import type { OptionReader } from '@weir/core'
import type { MatchTime } from './match-time.ts'
import { ProbeError } from './probe.ts'

/** There at all, equal to a text, or matching. */
export type HeaderExpectation = true | string | RegExp

export type TextTest = (text: string, time: MatchTime) => boolean | ProbeError

/** Substring or expression. `g` and `y` are taken off: they make an expression remember its last match. */
export function readTextExpectation(read: OptionReader, name: string, value: unknown): TextTest | undefined {
  if (value === undefined) return undefined
  if (value instanceof RegExp) {
    const once = new RegExp(value.source, value.flags.replace(/[gy]/g, ''))
    return (text, time) => time.spend(() => once.test(text))
  }
  if (typeof value === 'string' && value !== '') return (text) => text.includes(value)
  read.problem(name, value, 'a non-empty text that must occur, or a RegExp that must match')
  return undefined
}

/** @returns why this head is not a pass */
export function answerProblem(
  res: IncomingMessage,
  statusPasses: boolean,
  fields: readonly (readonly [string, HeaderExpectation])[],
  time: MatchTime,
): ProbeError | undefined {
  if (!statusPasses) return new ProbeError('ERR_PROBE_STATUS', `status ${res.statusCode}`)
  for (const [name, wanted] of fields) {
    const lines = res.headersDistinct[name]
    if (lines === undefined) return new ProbeError('ERR_PROBE_HEADER', `no field ${name}`)
    if (wanted === true) continue
    const matches = typeof wanted === 'string' ? lines.includes(wanted) : time.spend(() => lines.some((line) => line.search(wanted) >= 0))
    if (matches instanceof ProbeError) return matches
    if (!matches) return new ProbeError('ERR_PROBE_HEADER', `field ${name} is not what was expected`)
  }
  return undefined
}
