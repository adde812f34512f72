/** Where the body of a response ends, as its head says it. */
import { isField } from './headers.ts'
import type { ResponseHead } from './response-head.ts'

/**
 * Where a message ends is the proxy's to say, and not a hook's: a length that the body has not would make a client read the rest of it as another answer.
 * Without a body (HEAD, 304) it is only told of.
 */
export function frameBody(fields: string[], head: ResponseHead, sendsBody: boolean, length: number): void {
  const told = toldLength(fields)
  // A hook has given a status with a body to a response without one.
  const wanted = !sendsBody ? (head.status === 204 ? -1 : told) : !head.hasBody ? 0 : length
  if (told === wanted) return
  dropLength(fields)
  if (wanted >= 0) fields.push('Content-Length', String(wanted))
}

/** `Content-Length` of a flat list, -1 when there is none, `NaN` when it says nothing. */
export function toldLength(fields: readonly string[]): number {
  let told = -1
  for (let i = 0; i < fields.length; i += 2) {
    if (!isField(fields[i] as string, 'content-length')) continue
    const value = fields[i + 1] as string
    if (told !== -1 || !/^\d{1,15}$/.test(value)) return Number.NaN
    told = Number(value)
  }
  return told
}

export function dropLength(fields: string[]): void {
  for (let i = fields.length - 2; i >= 0; i -= 2) if (isField(fields[i] as string, 'content-length')) fields.splice(i, 2)
}
