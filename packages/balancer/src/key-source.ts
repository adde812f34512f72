/**
 * Finds a key in a request without cutting it out: what is found is a text and two marks in it, and whoever hashes it reads between them. A
 * pick for a cookie or a path then allocates nothing at all.
 */
import type { Exchange } from '@weir/core'

/** More segments than a path can have. Not `Infinity`, which the engine would copy for every call. */
export const wholePath: number = 2 ** 30

export type KeySource =
  | { readonly kind: 'header'; readonly name: FieldName }
  | { readonly kind: 'cookie'; readonly name: string }
  | { readonly kind: 'query'; readonly name: string }
  | { readonly kind: 'path'; readonly depth: number }
  | { readonly kind: 'url' | 'clientIp' | 'hashKey' }
  | { readonly kind: 'function'; readonly read: (exchange: Exchange) => string | undefined }

/** The name of a header field, which may come in any case. */
export class FieldName {
  readonly #lower: string
  /** As HTTP/1.1 clients write it. */
  readonly #usual: string
  readonly #first: number

  constructor(name: string) {
    this.#lower = name.toLowerCase()
    this.#usual = this.#lower.replace(/(?<=^|-)[a-z]/g, (letter) => letter.toUpperCase())
    this.#first = this.#lower.charCodeAt(0) | caseBit
  }

  /**
   * The two usual ways to write it are compared as wholes; others letter by letter, since making a lower-case copy of a name would allocate. Most letters are equal
   * as they are, and of two cases of one letter one bit alone differs.
   */
  is(name: string): boolean {
    const lower = this.#lower
    const { length } = lower
    if (name.length !== length || (name.charCodeAt(0) | caseBit) !== this.#first) return false
    if (name === this.#usual || name === lower) return true
    for (let i = 0; i < length; i++) {
      const wanted = lower.charCodeAt(i)
      const difference = name.charCodeAt(i) ^ wanted
      if (difference !== 0 && (difference !== caseBit || wanted < 0x61 || wanted > 0x7a)) return false
    }
    return true
  }
}

const caseBit = 0x20

const cookie = new FieldName('cookie')

/** Places to look in, in order. What was found stays in the fields until the next `find`. */
export class KeySources {
  text: string = ''
  start: number = 0
  end: number = 0
  /** `text` is an IP address. */
  isAddress: boolean = false
  readonly #sources: readonly KeySource[]

  constructor(sources: readonly KeySource[]) {
    this.#sources = sources
  }

  /** False when there is nothing, or only empty values, in all of them. */
  find(exchange: Exchange): boolean {
    for (let i = 0; i < this.#sources.length; i++) {
      const source = this.#sources[i] as KeySource
      this.isAddress = source.kind === 'clientIp'
      if (this.#look(source, exchange)) return true
    }
    return false
  }

  /** What was found, as a text of its own. */
  value(): string {
    return this.start === 0 && this.end === this.text.length ? this.text : this.text.slice(this.start, this.end)
  }

  #look(source: KeySource, exchange: Exchange): boolean {
    switch (source.kind) {
      case 'header':
        return this.#header(exchange.headers.raw, source.name)
      case 'cookie':
        return this.#cookie(exchange.headers.raw, source.name)
      case 'query':
        return this.#query(exchange.url, source.name)
      case 'path':
        return this.#set(exchange.url, 0, endOfPath(exchange.url, source.depth))
      case 'url':
        return this.#whole(exchange.url)
      case 'clientIp':
        return this.#whole(exchange.clientIp)
      case 'hashKey':
        return this.#whole(exchange.hashKey)
      case 'function':
        return this.#whole(source.read(exchange))
    }
  }

  #set(text: string, start: number, end: number): boolean {
    this.text = text
    this.start = start
    this.end = end
    return end > start
  }

  #whole(text: string | undefined): boolean {
    return text !== undefined && this.#set(text, 0, text.length)
  }

  #header(raw: readonly string[], name: FieldName): boolean {
    for (let i = 0; i < raw.length; i += 2) if (name.is(raw[i] as string)) return this.#whole(raw[i + 1])
    return false
  }

  /** Cookies may come in several lines (RFC 9113 §8.2.3). */
  #cookie(raw: readonly string[], name: string): boolean {
    for (let i = 0; i < raw.length; i += 2) if (cookie.is(raw[i] as string) && this.#pair(raw[i + 1] as string, 0, name, ';')) return true
    return false
  }

  #query(url: string, name: string): boolean {
    const mark = url.indexOf('?')
    return mark !== -1 && this.#pair(url, mark + 1, name, '&')
  }

  /** The value of the first `name=value` from `from` on that has one. */
  #pair(text: string, from: number, name: string, separator: string): boolean {
    for (let start = from; start < text.length; ) {
      let end = text.indexOf(separator, start)
      if (end === -1) end = text.length
      while (text.charCodeAt(start) === 0x20) start++
      const value = start + name.length + 1
      if (text.startsWith(name, start) && text.charCodeAt(value - 1) === 0x3d && this.#set(text, value, end)) return true
      start = end + 1
    }
    return false
  }
}

/** Behind so many segments, at the query, or at the end. */
function endOfPath(url: string, depth: number): number {
  let end = url.indexOf('?')
  if (end === -1) end = url.length
  if (depth === wholePath) return end
  let slash = 0
  for (let segments = 0; segments < depth; segments++) {
    slash = url.indexOf('/', slash + 1)
    if (slash === -1 || slash >= end) return end
  }
  return slash
}
