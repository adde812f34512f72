// autocannon ships no types; this is the part of its API that the benchmarks use.
declare module 'autocannon' {
  interface Options {
    readonly url: string
    readonly connections: number
    readonly duration: number
    readonly timeout: number
    readonly requests?: readonly { readonly method: string; readonly path: string; readonly headers: Readonly<Record<string, string>> }[]
  }
  interface Result {
    readonly requests: { readonly total: number }
    readonly duration: number
    readonly latency: { readonly p50: number; readonly p99: number }
    readonly errors: number
    readonly timeouts: number
    readonly non2xx: number
  }
  export default function autocannon(options: Options): Promise<Result>
}
