/**
 * What primary and workers say to each other over the channel that node opened between them. The application may use the same channel, so ours are
 * marked; and node writes messages as JSON, which knows neither `Infinity` (a session without an idle limit, a request that costs more than there ever
 * is) nor a difference between nothing and `undefined`.
 */

export interface Call {
  readonly weir: 'call'
  readonly id: number
  readonly store: string
  readonly method: string
  readonly args: string
}

export interface Answer {
  readonly weir: 'answer'
  readonly id: number
  readonly value?: string
  readonly error?: string
}

export function isCall(message: unknown): message is Call {
  return typeof message === 'object' && message !== null && (message as Partial<Call>).weir === 'call'
}

export function isAnswer(message: unknown): message is Answer {
  return typeof message === 'object' && message !== null && (message as Partial<Answer>).weir === 'answer'
}

/** Stands in front of what JSON cannot say; strings that begin with it get one more. */
const mark = '\u0001'

export function encode(value: unknown): string {
  return JSON.stringify([value], (_, part: unknown) => {
    if (part === undefined) return `${mark}u`
    if (typeof part === 'number' && !Number.isFinite(part)) return `${mark}${part}`
    return typeof part === 'string' && part.startsWith(mark) ? `${mark}${part}` : part
  })
}

export function decode(text: string): unknown {
  // Not a reviver: one that returns undefined takes the entry out.
  return restore((JSON.parse(text) as unknown[])[0])
}

function restore(part: unknown): unknown {
  if (typeof part === 'string') {
    if (!part.startsWith(mark)) return part
    const rest = part.slice(mark.length)
    return rest === 'u' ? undefined : rest.startsWith(mark) ? rest : Number(rest)
  }
  if (Array.isArray(part)) return part.map(restore)
  if (typeof part !== 'object' || part === null) return part
  return Object.fromEntries(Object.entries(part).map(([name, value]) => [name, restore(value)]))
}
