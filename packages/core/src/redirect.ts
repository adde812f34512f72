/**
 * `Location`, `Content-Location` and `Refresh` as the client must see them. An upstream that does not know its public name writes its own
 * address, which leaks it and sends the client past the proxy. Only a URL that provably points at this upstream is changed.
 */

export interface PublicFace {
  readonly proto: string
  readonly host: string | undefined
  /** Base path of the upstream, '' when none. */
  readonly base: string
  /** Prefix that the route took off, '' when none. */
  readonly prefix: string
  /** Authority of the upstream in lower case, port included when not the default. */
  readonly authority: string
  /** Where it listens, when it goes by another name. */
  readonly address?: string
}

const absolute = /^(https?):\/\/([^/?#]*)(.*)$/i

export function rewriteUrl(value: string, face: PublicFace): string {
  const match = absolute.exec(value)
  if (match !== null) {
    const authority = plainAuthority(match[1] as string, match[2] as string)
    if (face.host === undefined || (authority !== face.authority && authority !== face.address)) return value
    return `${face.proto}://${face.host}${publicPath(match[3] as string, face)}`
  }
  return value.charCodeAt(0) === 0x2f && value.charCodeAt(1) !== 0x2f ? publicPath(value, face) : value
}

/** Lower case, without the port that the scheme has anyway: an upstream may write it out. */
function plainAuthority(scheme: string, authority: string): string {
  return authority.toLowerCase().replace(scheme.toLowerCase() === 'https' ? /:(?:443)?$/ : /:(?:80)?$/, '')
}

export function rewriteRefresh(value: string, face: PublicFace): string {
  const match = /^(\s*\d+\s*[;,]\s*(?:url\s*=\s*)?)(['"]?)(.*?)\2\s*$/i.exec(value)
  return match === null ? value : `${match[1]}${match[2]}${rewriteUrl(match[3] as string, face)}${match[2]}`
}

function publicPath(path: string, face: PublicFace): string {
  let rest = path === '' ? '/' : path
  if (face.base !== '') {
    if (!rest.startsWith(face.base)) return rest
    const next = rest.charCodeAt(face.base.length)
    if (!Number.isNaN(next) && next !== 0x2f && next !== 0x3f && next !== 0x23) return rest
    rest = rest.slice(face.base.length)
    if (rest.charCodeAt(0) !== 0x2f) rest = `/${rest}`
  }
  return face.prefix + rest
}

/** In place, on the fields that will go out. */
export function rewriteRedirects(fields: string[], face: PublicFace): void {
  for (let i = 0; i < fields.length; i += 2) {
    const name = fields[i] as string
    const length = name.length
    if (length !== 8 && length !== 16 && length !== 7) continue
    const lower = name.toLowerCase()
    if (lower === 'location' || lower === 'content-location') fields[i + 1] = rewriteUrl(fields[i + 1] as string, face)
    else if (lower === 'refresh') fields[i + 1] = rewriteRefresh(fields[i + 1] as string, face)
  }
}
