/** Who is not limited at all: probes of a load balancer, an office, whoever a function says. */
import { BlockList, isIP } from 'node:net'
import type { Exchange, OptionReader } from '@weir/core'

/** Addresses and CIDR ranges, or a function of the exchange. */
export type ExemptOption = readonly string[] | ((exchange: Exchange) => boolean)

/** Undefined when nobody is exempt, which is the default and costs nothing. */
export function readExempt(read: OptionReader, value: ExemptOption | undefined): ((exchange: Exchange) => boolean) | undefined {
  if (value === undefined) return undefined
  if (typeof value === 'function') return value
  if (!Array.isArray(value)) {
    read.problem('exempt', value, 'a list of addresses and CIDR ranges, or a function of the exchange')
    return undefined
  }
  const list = new BlockList()
  value.forEach((entry: unknown, i) => {
    const [address = '', bits, rest] = String(entry).split('/')
    const version = isIP(address)
    const width = version === 4 ? 32 : 128
    const prefix = bits === undefined ? width : /^\d{1,3}$/.test(bits) ? Number(bits) : -1
    if (typeof entry !== 'string' || version === 0 || rest !== undefined || prefix < 0 || prefix > width) {
      read.at('exempt').problem(i, entry, "an IP address, or a CIDR range such as '10.0.0.0/8'")
      return
    }
    list.addSubnet(address, prefix, version === 4 ? 'ipv4' : 'ipv6')
  })
  if (value.length === 0) return undefined
  return ({ clientIp }) => clientIp !== '' && list.check(clientIp, clientIp.includes(':') ? 'ipv6' : 'ipv4')
}
