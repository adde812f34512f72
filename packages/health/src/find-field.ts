/** A field in a flat list of names and values, whatever the case of its name. Allocates nothing: it runs for every response. */

/** @param name in lower case */
export function findField(headers: readonly string[], name: string): string | undefined {
  for (let i = 0; i + 1 < headers.length; i += 2) if (sameName(headers[i] as string, name)) return headers[i + 1]
  return undefined
}

function sameName(given: string, name: string): boolean {
  if (given.length !== name.length) return false
  for (let i = 0; i < name.length; i++) {
    const code = given.charCodeAt(i)
    // A to Z, and only these: `|0x20` alone would make `[` and `{` the same.
    if ((code >= 65 && code <= 90 ? code | 0x20 : code) !== name.charCodeAt(i)) return false
  }
  return true
}
