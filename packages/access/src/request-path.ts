/**
 * A path as the strictest and the laxest server would read it, and what those in between may make of it. `/%61dmin`, `//admin`, `/admin;x` and `\admin` are
 * all `/admin` to some server, and none of them to another. A rule about `/admin` has to know both readings; where they differ, a rule that denies takes the worse
 * one. Mostly that is enough: however much of it a server resolves, resolving the rest gives the lax reading.
 *
 * With `..` it is not. What that takes away depends on what was resolved before: `/./admin//../users` is `/users` to a server that first makes one slash of two, and
 * `/admin/users` to a URL parser, for which there is an empty segment between them. So of such a path only that is taken for certain which holds whatever is
 * taken away: it can be at `/admin` only if `admin` is one of its segments, and it surely stays there if it never climbs that far.
 */

/** Without the query. */
export function pathOf(url: string): string {
  const query = url.indexOf('?')
  return query < 0 ? url : url.slice(0, query)
}

const plain = /^[^%\\;]*$/
const doubtful = /\/\/|\/\.{1,2}(?:\/|$)/

export interface PathReading {
  /** As it was sent. */
  readonly strict: string
  /** Everything that some server resolves is resolved. */
  readonly lax: string
  /** All names in it, when some of them may be taken away. */
  readonly names: readonly string[] | undefined
}

export function readPath(path: string): PathReading {
  if (plain.test(path) && !doubtful.test(path)) return { strict: path, lax: path, names: undefined }
  const text = decode(path)
  const segments = divide(text)
  // Behind a `;` an encoded slash is part of what is cut off, to whoever divides first.
  const uncertain = segments.includes('..') || (text.includes(';') && segments.length > path.split('/').length)
  return { strict: path, lax: resolve(segments), names: uncertain ? segments.filter(isName) : undefined }
}

/** What is clean already comes back as it is. */
export function laxPath(path: string): string {
  return readPath(path).lax
}

/** May some server find `wanted`, or something below it, behind a path with these names? Whatever it takes away, the rest keeps its order. */
export function canBeAt(names: readonly string[], wanted: string): boolean {
  let at = 0
  const needed = divide(decode(wanted)).filter(isName)
  for (const name of names) if (name === needed[at]) at++
  return at === needed.length
}

/** Does no server take away more than `rest` itself has brought? @param rest of a path, behind a slash */
export function staysBelow(rest: string): boolean {
  let depth = 0
  for (const sent of rest.split('/')) {
    // `a%2fb` is one segment to some and two to others, and either may be a `..`: counted as what brings least and takes most.
    const segments = divide(decode(sent))
    for (const segment of segments) if (segment === '..') depth--
    if (depth < 0) return false
    if (isName(segments[0] as string)) depth++
  }
  return true
}

function isName(segment: string): boolean {
  return segment !== '' && segment !== '.' && segment !== '..'
}

/** Servers in a row may each decode once. A percent sign that was itself encoded, however often, is undone in the same pass, so this ends soon. */
function decode(path: string): string {
  let text = path
  for (let i = 0; i < 8; i++) {
    const decoded = text.replace(/%(?:25)*([0-9a-f]{2})/gi, (_, hex: string) => String.fromCharCode(Number.parseInt(hex, 16)))
    if (decoded === text) break
    text = decoded
  }
  return text
}

/** At whatever somebody takes for a slash; without parameters. */
function divide(text: string): string[] {
  return text
    .replaceAll('\\', '/')
    .split('/')
    .map((segment) => {
      const semicolon = segment.indexOf(';')
      return semicolon < 0 ? segment : segment.slice(0, semicolon)
    })
}

function resolve(segments: readonly string[]): string {
  const kept: string[] = []
  for (const segment of segments) {
    if (segment === '..') kept.pop()
    else if (isName(segment)) kept.push(segment)
  }
  if (kept.length > 0 && !isName(segments.at(-1) as string)) kept.push('')
  return `/${kept.join('/')}`
}
