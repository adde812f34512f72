/** One table decides what a failure is. These are the rules that every row keeps, so that adding one cannot break them silently. */
import { describe, expect, it, vi } from 'vitest'
import { type ErrorCode, errorTable, ProxyError } from './errors.ts'
import type { Upstream } from './upstream.ts'

const rows = Object.entries(errorTable) as [ErrorCode, (typeof errorTable)[ErrorCode]][]

// RFC 9209 §2.3.2 to §2.3.32, in order.
const registered = [
  'dns_timeout',
  'dns_error',
  'destination_not_found',
  'destination_unavailable',
  'destination_ip_prohibited',
  'destination_ip_unroutable',
  'connection_refused',
  'connection_terminated',
  'connection_timeout',
  'connection_read_timeout',
  'connection_write_timeout',
  'connection_limit_reached',
  'tls_protocol_error',
  'tls_certificate_error',
  'tls_alert_received',
  'http_request_error',
  'http_request_denied',
  'http_response_incomplete',
  'http_response_header_section_size',
  'http_response_header_size',
  'http_response_body_size',
  'http_response_trailer_section_size',
  'http_response_trailer_size',
  'http_response_transfer_coding',
  'http_response_content_coding',
  'http_response_timeout',
  'http_upgrade_failed',
  'http_protocol_error',
  'proxy_internal_response',
  'proxy_internal_error',
  'proxy_configuration_error',
  'proxy_loop_detected',
]

describe('every row', () => {
  it.each(rows)('%s is whole', (code, row) => {
    expect(code).toMatch(/^ERR_[A-Z]+(_[A-Z]+)*$/)
    expect(row.status).toSatisfy((status: number) => Number.isInteger(status) && status >= 400 && status <= 599)
    expect(['client', 'upstream', 'proxy']).toContain(row.source)
    expect(['request', 'route', 'stage', 'queue', 'connect', 'send', 'head', 'body', 'tunnel']).toContain(row.phase)
    expect([true, false, 'if-reused']).toContain(row.retry)
    expect(row.text).toMatch(/^[A-Z].*\.$/)
  })

  it.each(rows)('%s has a type that RFC 9209 lists, or none', (_, row) => {
    if (row.type !== undefined) expect(registered).toContain(row.type)
  })

  it('only what is never answered has no type: nobody is there to read it', () => {
    expect(rows.filter(([, row]) => row.type === undefined).map(([code]) => code)).toEqual(['ERR_CLIENT_ABORTED', 'ERR_HEDGE_LOST'])
  })

  it.each(rows)('%s: the status says whose fault it was', (code, row) => {
    // 501 for a transfer coding is what RFC 9112 §6.1 asks for.
    if (row.source === 'client') expect(row.status < 500 || code === 'ERR_TRANSFER_CODING').toBe(true)
    else if (code !== 'ERR_NO_ROUTE') expect(row.status).toBeGreaterThanOrEqual(500)
    if (row.source === 'upstream') expect([502, 504]).toContain(row.status)
    if (/TIMEOUT|DEADLINE|IDLE/.test(code)) expect(row.status).toBe(504)
    if (row.type?.endsWith('_timeout')) expect(row.status).toBe(504)
  })

  it.each(rows)('%s: a second try is only safe when the upstream failed, and without condition only before anything was sent', (_, row) => {
    if (row.retry !== false) expect(row.source).toBe('upstream')
    expect(row.retry === true).toBe(row.phase === 'connect')
    if (row.retry === 'if-reused') expect(row.phase).toBe('head')
  })
})

describe('ProxyError', () => {
  it.each(rows)('%s: an error says what its row says', (code, row) => {
    const error = new ProxyError(code)
    expect(error).toBeInstanceOf(Error)
    const { name, message, source, phase, status, retry, type } = error
    expect({ name, code: error.code, message, source, phase, status, retry, type }).toEqual({
      name: 'ProxyError',
      code,
      message: row.text,
      source: row.source,
      phase: row.phase,
      status: row.status,
      retry: row.retry,
      type: row.type,
    })
  })

  it('carries its own message, cause, upstream and attempt', () => {
    const cause = new Error('ECONNREFUSED')
    const upstream = { id: 'a' } as Upstream
    const error = new ProxyError('ERR_CONNECT_REFUSED', { message: 'a refused', cause, upstream, attempt: 2 })
    expect(error).toMatchObject({ message: 'a refused', attempt: 2 })
    expect(error.cause).toBe(cause)
    expect(error.upstream).toBe(upstream)
  })

  it('has no cause when there was none', () => {
    expect('cause' in new ProxyError('ERR_DNS')).toBe(false)
  })

  it('is known across copies of this package, by more than its fields', async () => {
    vi.resetModules()
    const copy = await import('./errors.ts')
    expect(copy.ProxyError).not.toBe(ProxyError)
    const foreign = new copy.ProxyError('ERR_DNS')
    expect(foreign).not.toBeInstanceOf(ProxyError)
    expect(ProxyError.is(foreign)).toBe(true)
    expect(copy.ProxyError.is(new ProxyError('ERR_DNS'))).toBe(true)
    const alike = Object.assign({}, foreign, { name: 'ProxyError' })
    for (const other of [alike, new Error('x'), null, undefined, 'ERR_DNS', 502]) expect(ProxyError.is(other)).toBe(false)
  })

  it('does not show the mark of its kind in logs', () => {
    expect(
      Object.getOwnPropertySymbols(new ProxyError('ERR_DNS')).filter(
        (s) => Object.getOwnPropertyDescriptor(new ProxyError('ERR_DNS'), s)?.enumerable,
      ),
    ).toEqual([])
  })
})
