/** What is read beforehand against what is read for every answer: the same fields, the same length, and nothing of anybody's changed. */
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { keepEndToEnd } from './hop-by-hop.ts'
import { createProxy } from './proxy.ts'
import { ReplyFields } from './reply-fields.ts'
import type { Reply } from './stage.ts'

const name = fc.constantFrom('Connection', 'keep-alive', 'Upgrade', 'Trailer', 'TE', 'Content-Type', 'X-A', 'Set-Cookie', 'x-named')
const value = fc.constantFrom('close', 'x-named', 'keep-alive, X-A', '1', '')

describe('fields of replies', () => {
  it('are those that a single reply with this list has', () => {
    fc.assert(
      fc.property(fc.array(fc.tuple(name, value), { maxLength: 8 }), fc.option(fc.nat(99), { nil: undefined }), (pairs, length) => {
        const given: string[] = pairs.flat()
        if (length !== undefined) given.push('content-LENGTH', String(length))
        const before = [...given]
        const fields = new ReplyFields(given)
        const kept = [...before]
        keepEndToEnd(kept, false)
        expect(fields.list).toEqual(kept)
        expect(fields.length).toBe(length ?? -1)
        expect(given).toEqual(before)
      }),
    )
  })

  it('have Content-Disposition in front of Content-Length, behind which node changes its octets', () => {
    const fields = new ReplyFields(['Content-Length', '3', 'Content-Disposition', 'a; filename="caf\xe9"', 'ETag', '"1"'])
    expect(fields.list).toEqual(['Content-Disposition', 'a; filename="caf\xe9"', 'ETag', '"1"', 'Content-Length', '3'])
    expect(fields.length).toBe(3)
  })

  it('stay what they are, whatever is done to an answer that has them', async () => {
    const reply: Reply = { status: 200, fields: new ReplyFields(['X-A', '1', 'Content-Length', '2']), body: Buffer.from('ok') }
    const editing = { ways: 0 }
    const proxy = createProxy({
      upstreams: ['http://a.test'],
      use: [
        ({ url }) =>
          url === '/edited'
            ? {
                onResponse: ({ headers }) => {
                  editing.ways++
                  headers.set('X-A', 'edited').append('X-B', 'added')
                },
              }
            : undefined,
        () => reply,
      ],
    })
    const seen = async (url: string) => [...(await proxy.inject({ url })).headers].filter(([field]) => /^x-/i.test(field))
    expect(await seen('/')).toEqual([['X-A', '1']])
    expect(await seen('/edited')).toEqual([
      ['X-A', 'edited'],
      ['X-B', 'added'],
    ])
    expect(await seen('/')).toEqual([['X-A', '1']])
    expect(editing.ways).toBe(1)
    await proxy.close()
  })

  it('with a length that is not the body’s are put right', async () => {
    const fields = new ReplyFields(['Content-Length', '5'])
    const proxy = createProxy({ upstreams: ['http://a.test'], use: [() => ({ status: 200, fields, body: Buffer.from('ok') })] })
    for (let i = 0; i < 2; i++) {
      const { headers, body } = await proxy.inject({})
      expect([headers.get('content-length'), String(body)]).toEqual(['2', 'ok'])
    }
    await proxy.close()
  })
})
