/**
 * A path as the strictest and the laxest server would read it. `/%61dmin`, `//admin`, `/x/../admin`, `/admin;x` and `\admin` are all `/admin` to
 * some server, and none of them to another. A rule about `/admin` has to know both readings; where they differ, a rule that denies takes the
 * worse one.
 */

/** Without the query. */
export function pathOf(url: string): string {
  const query = url.indexOf('?')
  return query < 0 ? url : url.slice(0, query)
}

const plain = /^[^%\\;]*$/
const doubtful = /\/\/|\/\.{1,2}(?:\/|$)/

/** Everything that some server resolves is resolved. What is clean already comes back as it is. */
export function laxPath(path: string): string {
  if (plain.test(path) && !doubtful.test(path)) return path
  let text = path
  // Servers in a row may each decode once. A percent sign that was itself encoded, however often, is undone in the same pass, so this ends soon.
  for (let i = 0; i < 8; i++) {
    const decoded = text.replace(/%(?:25)*([0-9a-f]{2})/gi, (_, hex: string) => String.fromCharCode(Number.parseInt(hex, 16)))
    if (decoded === text) break
    text = decoded
  }
  const kept: string[] = []
  const segments = text.replaceAll('\\', '/').split('/')
  segments.forEach((segment, index) => {
    const semicolon = segment.indexOf(';')
    const name = semicolon < 0 ? segment : segment.slice(0, semicolon)
    const last = index === segments.length - 1
    if (name === '..') kept.pop()
    else if (name !== '' && name !== '.') kept.push(name)
    if (last && kept.length > 0 && (name === '' || name === '.' || name === '..')) kept.push('')
  })
  return `/${kept.join('/')}`
}
