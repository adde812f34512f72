/** `Cache-Control` of a response that carries somebody's session. */
import { HeaderList } from '@weir/core'
import { describe, expect, it } from 'vitest'
import { makePrivate } from './private-response.ts'

describe('makePrivate', () => {
  it.each([
    [[], 'private'],
    [[''], 'private'],
    [['max-age=60'], 'max-age=60, private'],
    [['public', 'max-age=60'], 'public, max-age=60, private'],
    [['Private, max-age=60'], 'Private, max-age=60'],
    [['max-age=1', 'no-store'], 'max-age=1, no-store'],
    [['private="x-a, private, x-b"'], 'private="x-a, private, x-b", private'],
    [['private=x-a'], 'private=x-a, private'],
    [['ext="1, no-store, 2"'], 'ext="1, no-store, 2", private'],
  ])('%j becomes %s', (lines, expected) => {
    const headers = new HeaderList(lines.flatMap((line) => ['Cache-Control', line]))
    makePrivate(headers)
    expect(headers.get('cache-control')).toBe(expected)
  })
})
