/** Heads that these tests send, written out: what goes over a raw socket should be seen in the test, or be this short. */

/** A GET with Host and these field lines. */
export function get(path = '/', ...lines: readonly string[]): string {
  return head('GET', path, ...lines)
}

/** A request head for localhost with these field lines, closed by the empty line. */
export function head(method: string, path: string, ...lines: readonly string[]): string {
  return `${[`${method} ${path} HTTP/1.1`, 'Host: localhost', ...lines].join('\r\n')}\r\n\r\n`
}

/** A request head for a WebSocket. */
export function upgradeHead(path = '/', ...lines: readonly string[]): string {
  return head(
    'GET',
    path,
    'Connection: Upgrade',
    'Upgrade: websocket',
    'Sec-WebSocket-Version: 13',
    'Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==',
    ...lines,
  )
}

/** The 101 that belongs to the key of `upgradeHead` (RFC 6455 §1.3), with these further field lines. */
export function switching(...lines: readonly string[]): string {
  return `${[
    'HTTP/1.1 101 Switching Protocols',
    'Connection: Upgrade',
    'Upgrade: websocket',
    'Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=',
    ...lines,
  ].join('\r\n')}\r\n\r\n`
}

/** A 200 with Content-Length and these further field lines. */
export function ok(body: string, ...lines: readonly string[]): string {
  return `${['HTTP/1.1 200 OK', `Content-Length: ${Buffer.byteLength(body)}`, ...lines].join('\r\n')}\r\n\r\n${body}`
}
