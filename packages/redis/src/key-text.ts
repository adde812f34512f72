/**
 * Keys as Redis gets them. What identifies a client may hold anything, a brace, a lone surrogate, a line break; what Redis hashes on a cluster is what
 * stands between the first braces. So plain text stays as it is, and everything else is encoded, in a way that no two keys share.
 */
const plain = /^[!-$&-z|]*$/

/** No braces, nothing but printable ASCII; another text for every key. */
export function keyText(key: string): string {
  return plain.test(key) ? key : `%${Buffer.from(key, 'utf16le').toString('base64url')}`
}
