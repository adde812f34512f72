/** One autocannon run as a process: the plan comes as JSON on the command line, the result goes to stdout. */
import autocannon from 'autocannon'
import type { LoadPlan, LoadResult } from '../load.ts'

const { port, connections, seconds, targets } = JSON.parse(process.argv[2] as string) as LoadPlan

const result = await autocannon({
  url: `http://127.0.0.1:${port}`,
  connections,
  duration: seconds,
  timeout: 10,
  ...(targets && { requests: targets.map(({ host, path }) => ({ method: 'GET' as const, path, headers: { host } })) }),
})

process.stdout.write(
  JSON.stringify({
    requests: result.requests.total,
    perSecond: result.requests.total / result.duration,
    p50: result.latency.p50,
    p99: result.latency.p99,
    failures: result.errors + result.timeouts + result.non2xx,
  } satisfies LoadResult),
)
