/**
 * The upstream of the request benchmarks: 1 KiB from memory, in a process of its own. nginx costs a fraction of any contestant, so the
 * second core is left to the load generator; where it is missing a Node server takes its place, and absolute throughput drops.
 */
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { type Child, freePort, scratchDirectory, startNode, startProgram } from './children.ts'
import { installed } from './machine.ts'

export interface UpstreamSet {
  readonly child: Child
  readonly urls: readonly string[]
}

/** @param count how many addresses it answers on */
export async function startUpstream(count: number = 1): Promise<UpstreamSet> {
  if (!installed('nginx')) {
    const child = await startNode('upstreams/static.ts', [String(count)])
    return { child, urls: (child.ready.ports as readonly number[]).map((port) => `http://127.0.0.1:${port}`) }
  }
  // One port on as many loopback addresses as needed: all of 127/8 is ours, free ports would have to be found one by one.
  const port = await freePort()
  const hosts = Array.from({ length: count }, (_, i) => `127.0.${Math.floor(i / 250)}.${(i % 250) + 1}`)
  const directory = scratchDirectory()
  const file = join(directory, `nginx-upstream-${port}.conf`)
  writeFileSync(
    file,
    `daemon off; master_process off; pid ${file}.pid; error_log stderr crit; worker_rlimit_nofile 16384;
events { worker_connections 15000; }
http {
  access_log off; server_tokens off; default_type text/plain;
  client_body_temp_path ${directory}/b; proxy_temp_path ${directory}/p; fastcgi_temp_path ${directory}/f; uwsgi_temp_path ${directory}/u; scgi_temp_path ${directory}/s;
  keepalive_timeout 3600s; keepalive_requests 1000000000;
  server {
    ${hosts.map((host) => `listen ${host}:${port} backlog=4096;`).join('\n    ')}
    location / { return 200 "${'x'.repeat(1024)}"; }
  }
}
`,
  )
  const child = await startProgram('nginx', ['-p', directory, '-c', file], port)
  return { child, urls: hosts.map((host) => `http://${host}:${port}`) }
}
