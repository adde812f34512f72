/** TLS towards upstreams, the same options for every transport. Verification is on; switching it off has a name that one must type. */
import type { ConnectionOptions } from 'node:tls'
import type { OptionReader } from '../options.ts'
import type { Upstream } from '../upstream.ts'

export interface UpstreamTlsOptions {
  /** Certificate authorities to trust instead of the built-in ones, PEM. */
  readonly ca?: string | Buffer | readonly (string | Buffer)[]
  /** Client certificate and key, PEM. */
  readonly cert?: string | Buffer
  readonly key?: string | Buffer
  /** SNI and expected certificate name, for all upstreams. Default: the upstream's `host`, or the host name of its URL. */
  readonly servername?: string
  /** Accept any certificate. Anyone on the path can then read and change everything; warns once per process. Default false. */
  readonly insecure?: boolean
}

/** The name without its port that `upstream` is asked for and must prove. @param servername of the options: one for all upstreams */
export function serverNameOf(upstream: Upstream, servername: string | undefined): string {
  return servername ?? upstream.host?.replace(/:\d+$/, '') ?? upstream.url.hostname.replace(/^\[|\]$/g, '')
}

let warned = false

export function readTlsOptions(
  value: UpstreamTlsOptions | undefined,
  read: OptionReader,
): { readonly connect: ConnectionOptions; readonly servername: string | undefined } {
  const given = read.object<UpstreamTlsOptions>(value, ['ca', 'cert', 'key', 'servername', 'insecure'])
  const insecure = read.boolean('insecure', given.insecure, false)
  if ((given.cert === undefined) !== (given.key === undefined))
    read.problem('cert', given.cert === undefined ? undefined : '(set)', '`cert` and `key` together')
  if (insecure && !warned) {
    warned = true
    process.emitWarning(
      'Upstream certificates are not verified (tls.insecure: true): anyone on the path can read and change the traffic.',
      {
        code: 'WEIR_INSECURE_TLS',
      },
    )
  }
  if (given.servername !== undefined && (typeof given.servername !== 'string' || given.servername === ''))
    read.problem('servername', given.servername, 'a host name')
  for (const name of ['ca', 'cert', 'key'] as const) {
    const values: unknown[] = given[name] === undefined ? [] : [given[name]].flat()
    if (values.some((value) => !isPem(value))) read.problem(name, '(not PEM)', 'PEM text (-----BEGIN ...), as a string or Buffer')
  }
  const connect: ConnectionOptions = { rejectUnauthorized: !insecure }
  if (given.ca !== undefined) connect.ca = given.ca as NonNullable<ConnectionOptions['ca']>
  if (given.cert !== undefined) connect.cert = given.cert
  if (given.key !== undefined) connect.key = given.key
  return { connect, servername: given.servername }
}

function isPem(value: unknown): boolean {
  return (typeof value === 'string' || Buffer.isBuffer(value)) && value.includes('-----BEGIN ')
}
