/**
 * Which addresses may be connected to. Asked at the moment of connecting, because a name that was harmless when it was configured can point to
 * a metadata service an hour later (DNS rebinding): node's resolver is called with the check behind it, and an address in a URL is checked too.
 */
import { lookup as dnsLookup, type LookupAddress, type LookupOptions } from 'node:dns'
import { isIP, type LookupFunction } from 'node:net'
import { ProxyError } from '../errors.ts'
import { foldAddress } from '../forwarded.ts'
import type { Upstream } from '../upstream.ts'

/** Gets an address without brackets or zone, IPv4 also where it was written as IPv6 (`::ffff:10.0.0.1`), and says whether it may be connected to. */
export type AddressCheck = (address: string) => boolean

/** The refusal when the upstream's URL holds an address that is not allowed; undefined for names (see `checkedLookup`) and sockets. */
export function refusedAddress(upstream: Upstream, allow: AddressCheck | undefined): ProxyError | undefined {
  return upstream.url.protocol === 'unix:' ? undefined : refusedHost(upstream.url.hostname, allow)
}

/** The same for a host, with or without brackets. For whoever connects to upstreams besides the transports: health probes. */
export function refusedHost(host: string, allow: AddressCheck | undefined): ProxyError | undefined {
  const address = host.replace(/^\[|\]$/g, '')
  if (allow === undefined || isIP(address) === 0) return undefined
  const { allowed, cause } = sift([{ address, family: isIP(address) }], allow)
  return allowed.length > 0 ? undefined : refusal([address], cause)
}

/** Asks once for each. A check that throws allows nothing. */
function sift(addresses: readonly LookupAddress[], allow: AddressCheck): { readonly allowed: LookupAddress[]; readonly cause: unknown } {
  let cause: unknown
  const allowed = addresses.filter(({ address }) => {
    try {
      return allow(foldAddress(address))
    } catch (error) {
      cause = error
      return false
    }
  })
  return { allowed, cause }
}

function refusal(addresses: readonly string[], cause: unknown): ProxyError {
  return new ProxyError('ERR_ADDRESS_DENIED', {
    message: `allowAddress refuses ${addresses.join(', ')}`,
    ...(cause === undefined ? null : { cause }),
  })
}

/** `dns.lookup` that gives out allowed addresses only, for `net.connect({ lookup })`. It fails with `ERR_ADDRESS_DENIED` when none is left. */
export function checkedLookup(allow: AddressCheck): LookupFunction {
  return (hostname, options, callback) => {
    const all: LookupOptions = { ...options, all: true }
    dnsLookup(hostname, all, (error, found) => {
      if (error !== null) {
        callback(error, '')
        return
      }
      const addresses = found as unknown as LookupAddress[]
      const { allowed, cause } = sift(addresses, allow)
      const [first] = allowed
      if (first === undefined)
        callback(
          refusal(
            addresses.map(({ address }) => address),
            cause,
          ) as unknown as NodeJS.ErrnoException,
          '',
        )
      else if (options.all === true) callback(null, allowed)
      else callback(null, first.address, first.family)
    })
  }
}
