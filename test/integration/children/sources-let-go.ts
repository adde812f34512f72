/**
 * Run by discovery.test.ts in a process of its own, which must end by itself: sources of every kind are being read, each waiting for what comes next
 * (a TTL, a change of a file, an answer over HTTP that never comes). Prints how many have given a list.
 */
import { dnsSource, fileSource, httpSource, merge } from '../../../packages/discovery/src/index.ts'

const [dns = '', file = '', fine = '', silent = ''] = process.argv.slice(2)
const guard = false
const sources = [
  dnsSource({ host: 'app.test', servers: [dns], guard }),
  fileSource(file),
  httpSource({ url: fine, guard }),
  merge(fileSource(file), dnsSource({ host: 'app.test', servers: [dns], guard })),
]
const iterators = sources.map((source) => source[Symbol.asyncIterator]())
const lists = await Promise.all(iterators.map((iterator) => iterator.next()))
for (const iterator of iterators) void iterator.next()
void httpSource({ url: silent })[Symbol.asyncIterator]().next()
process.stdout.write(JSON.stringify(lists.filter(({ value }) => (value?.length ?? 0) > 0).length))
