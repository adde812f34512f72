/** A body parser was first: what it left is sent when it says the bytes for certain, else the request fails at once. */
import type { IncomingMessage } from 'node:http'
import { describe, expect, it } from 'vitest'
import { consumedBody } from './consumed-body.ts'
import { ProxyError } from './errors.ts'

const request = (type: string | undefined, left: { body?: unknown; rawBody?: unknown }, encoding?: string): IncomingMessage =>
  ({
    headers: { ...(type && { 'content-type': type }), ...(encoding && { 'content-encoding': encoding }) },
    ...left,
  }) as unknown as IncomingMessage

describe('rebuilt', () => {
  const json = 'application/json'
  const form = 'application/x-www-form-urlencoded'
  const rows: [what: string, req: IncomingMessage, bytes: string][] = [
    ['raw bytes', request('image/png', { body: Buffer.from([0, 255, 128]) }), '\0\xff\x80'],
    [
      'raw bytes that the parser kept, before what it made of them',
      request(json, { body: { a: 1 }, rawBody: Buffer.from('{ "a": 1 }') }),
      '{ "a": 1 }',
    ],
    ['raw text that the parser kept', request(json, { body: { a: 1 }, rawBody: '{"a":1.0}' }), '{"a":1.0}'],
    ['raw bytes before bytes', request('image/png', { body: Buffer.from('parsed'), rawBody: Buffer.from('raw') }), 'raw'],
    ['raw bytes before text', request('text/plain', { body: 'decoded', rawBody: Buffer.from('raw') }), 'raw'],
    ['text', request('text/plain', { body: 'caf\xe9' }), 'caf\xc3\xa9'],
    ['text in UTF-8, said so', request('text/plain; charset="UTF-8"', { body: 'caf\xe9' }), 'caf\xc3\xa9'],
    ['empty text', request('text/plain', { body: '' }), ''],
    ['JSON', request(json, { body: { a: [1, 'é', null] } }), '{"a":[1,"\xc3\xa9",null]}'],
    ['JSON with parameters, in capitals', request('Application/JSON ; charset=utf-8', { body: [] }), '[]'],
    ['JSON by suffix', request('application/vnd.api+json', { body: { a: 1 } }), '{"a":1}'],
    ['JSON that is no object', request(json, { body: false }), 'false'],
    ['JSON, not encoded', request(json, { body: 0 }, 'identity'), '0'],
    ['a form', request(form, { body: { a: '1 2', b: ['x&y', 'é'], c: '' } }), 'a=1+2&b=x%26y&b=%C3%A9&c='],
    ['an empty form', request(`${form}; charset=utf-8`, { body: {} }), ''],
  ]
  for (const [what, req, bytes] of rows) it(what, () => expect(consumedBody(req).toString('latin1')).toBe(bytes))

  it('bytes are not copied', () => {
    const whole = Buffer.from('xabcx')
    const body = consumedBody(request('image/png', { body: whole.subarray(1, 4) }))
    expect(body.toString()).toBe('abc')
    expect(body.buffer).toBe(whole.buffer)
    expect(body.byteOffset).toBe(whole.byteOffset + 1)
  })
})

describe('refused', () => {
  const rows: [what: string, req: IncomingMessage][] = [
    ['nothing was left', request('application/json', {})],
    ['null was left, which parsers use for "nothing"', request('application/json', { body: null })],
    ['no type', request(undefined, { body: { a: 1 } })],
    ['a type that says nothing about the bytes', request('application/xml', { body: { a: 1 } })],
    ['multipart', request('multipart/form-data; boundary=x', { body: { a: '1' } })],
    ['a type that only looks like JSON', request('application/jsonp', { body: { a: 1 } })],
    ['a nested form, which has many spellings', request('application/x-www-form-urlencoded', { body: { a: { b: '1' } } })],
    ['a form with nested lists', request('application/x-www-form-urlencoded', { body: { a: [['1']] } })],
    ['a form with numbers', request('application/x-www-form-urlencoded', { body: { a: 1 } })],
    ['JSON that was compressed on the way', request('application/json', { body: { a: 1 } }, 'gzip')],
    ['a form that was compressed', request('application/x-www-form-urlencoded', { body: { a: '1' } }, 'br')],
    // Body parsers inflate before they hand out bytes; sent on under `Content-Encoding: gzip` they would be garbage.
    ['bytes that a parser has inflated', request('image/svg+xml', { body: Buffer.from('<svg/>') }, 'gzip')],
    ['text that a parser has inflated', request('text/plain', { body: 'abc' }, 'deflate')],
    // A parser decodes text by its charset; as UTF-8 it would not be what the header says.
    ['text in another charset', request('text/plain; charset=iso-8859-1', { body: 'caf\xe9' })],
    ['JSON in another charset', request('application/json; charset=utf-16le', { body: { a: 1 } })],
    ['what JSON cannot say', request('application/json', { body: () => {} })],
    ['what JSON cannot write', request('application/json', { body: 10n })],
  ]
  for (const [what, req] of rows)
    it(what, () => {
      let caught: unknown
      try {
        consumedBody(req)
      } catch (error) {
        caught = error
      }
      expect(caught).toSatisfy((error: unknown) => ProxyError.is(error) && error.code === 'ERR_BODY_CONSUMED')
    })
})
