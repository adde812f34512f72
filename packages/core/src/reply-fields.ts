/**
 * The fields of a reply that is sent again and again, looked through once. What a stage gives as a flat list is read for every answer, because nobody knows what
 * is in it; whoever keeps an answer, as a cache does, can have that done beforehand.
 */
import { isField } from './headers.ts'
import { keepEndToEnd } from './hop-by-hop.ts'

export class ReplyFields {
  // Private, so that nothing else passes for one.
  readonly #list: readonly string[]
  readonly #length: number

  /** @param fields a flat list of names and values; it is copied */
  constructor(fields: readonly string[]) {
    const list = fields.slice()
    const { length, disposition } = keepEndToEnd(list, false)
    if (disposition) lengthLast(list)
    this.#list = list
    this.#length = length
  }

  /** What was given, without what belongs to a connection. Not a copy: it is not written to. */
  get list(): readonly string[] {
    return this.#list
  }

  /** `Content-Length`, -1 without one. */
  get length(): number {
    return this.#length
  }
}

/** Behind a Content-Length node reads Content-Disposition as latin1 and writes it as UTF-8, which changes its octets. */
export function lengthLast(fields: string[]): void {
  for (let i = fields.length - 2; i >= 0; i -= 2) if (isField(fields[i] as string, 'content-length')) fields.push(...fields.splice(i, 2))
}
