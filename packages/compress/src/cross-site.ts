/**
 * BREACH (2013): whoever can make a browser send requests with its cookies, sees the lengths of the answers, and has a part of what it sends
 * reflected beside a secret, reads the secret letter by letter, since a right guess compresses better. The browser says by itself when another
 * site has made it ask (`Sec-Fetch-Site`, which pages cannot set), and the one ingredient that a proxy can take away is the compression.
 */
import type { Exchange } from '@weir/core'

/** Asked for by another site, with what lets the answer hold a secret. A browser that does not say, or no browser, is not met. */
export function isCrossSiteWithCredentials({ headers }: Exchange): boolean {
  return headers.get('sec-fetch-site')?.trim().toLowerCase() === 'cross-site' && (headers.has('cookie') || headers.has('authorization'))
}

/**
 * Asked for by a page of another origin that may not read the response (RFC 9842 §9.3): what it weighs would tell how much it is like a dictionary that the page may have
 * chosen. Whether a page may (CORS) is not known before the response is, and a cache would hand it to the next one, so those that may are not told apart. Visits
 * (`navigate`) are for the visitor's eyes.
 */
export function isForeign({ headers }: Exchange): boolean {
  const site = headers.get('sec-fetch-site')?.trim().toLowerCase()
  if (site === undefined || site === 'same-origin' || site === 'none') return false
  return headers.get('sec-fetch-mode')?.trim().toLowerCase() !== 'navigate'
}
