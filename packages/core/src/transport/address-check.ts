/**
 * Which addresses may be connected to. Asked at the moment of connecting, because a name that was harmless when it was configured can point to
 * a metadata service an hour later (DNS rebinding): node's resolver is called with the check behind it, and an address in a URL is checked too.
 */
import { lookup as dnsLookup, type LookupAddress, type LookupOptions } from 'node:dns'
import { isIP, type LookupFunction } from 'node:net'
import { ProxyError } from '../errors.ts'
import type { Upstream } from '../upstream.ts'

/** Gets an address without brackets or zone, says whether it may be connected to. */
export type AddressCheck = (address: string) => boolean

/** The refusal when the upstream's URL holds an address that is not allowed; undefined for names (see `checkedLookup`) and sockets. */
export function refusedAddress(upstream: Upstream, allow: AddressCheck | undefined): ProxyError | undefined {
  if (allow === undefined || upstream.url.protocol === 'unix:') return undefined
  const address = upstream.url.hostname.replace(/^\[|\]$/g, '')
  return isIP(address) === 0 || allow(address) ? undefined : refuse(address)
}

function refuse(address: string): ProxyError {
  return new ProxyError('ERR_ADDRESS_DENIED', { message: `allowAddress refuses ${address}` })
}

/** `dns.lookup` that gives out allowed addresses only. */
export function checkedLookup(allow: AddressCheck): LookupFunction {
  return (hostname, options, callback) => {
    const all: LookupOptions = { ...options, all: true }
    dnsLookup(hostname, all, (error, found) => {
      if (error !== null) {
        callback(error, '')
        return
      }
      const addresses = found as unknown as LookupAddress[]
      const allowed = addresses.filter(({ address }) => allow(address))
      if (allowed.length === 0) callback(refuse(addresses.map(({ address }) => address).join(', ')) as unknown as NodeJS.ErrnoException, '')
      else if (options.all === true) callback(null, allowed)
      else callback(null, (allowed[0] as LookupAddress).address, (allowed[0] as LookupAddress).family)
    })
  }
}
