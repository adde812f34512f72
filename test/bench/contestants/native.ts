/**
 * nginx, HAProxy, Caddy and Varnish as reverse proxies: one worker or thread, keep-alive on both sides, no access log. Configured for what is
 * measured, not for the defaults: nginx relays bodies as they come instead of spooling them to disk first.
 */
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { type Child, freePort, scratchDirectory, startProgram } from '../children.ts'

export async function startNginxProxy(upstream: string): Promise<Child> {
  const port = await freePort()
  const directory = scratchDirectory()
  const file = join(directory, `nginx-proxy-${port}.conf`)
  writeFileSync(
    file,
    `daemon off; master_process off; pid ${file}.pid; error_log stderr crit; worker_rlimit_nofile 16384;
events { worker_connections 4096; }
http {
  access_log off; server_tokens off;
  client_body_temp_path ${directory}/b; proxy_temp_path ${directory}/p; fastcgi_temp_path ${directory}/f; uwsgi_temp_path ${directory}/u; scgi_temp_path ${directory}/s;
  keepalive_timeout 3600s; keepalive_requests 1000000000; client_max_body_size 0;
  upstream pool { server ${new URL(upstream).host}; keepalive 1024; keepalive_requests 1000000000; keepalive_timeout 3600s; }
  server {
    listen 127.0.0.1:${port} backlog=4096;
    location / {
      proxy_pass http://pool; proxy_http_version 1.1; proxy_set_header Connection ""; proxy_set_header Host $http_host;
      proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for; proxy_set_header X-Forwarded-Proto $scheme;
      proxy_max_temp_file_size 0; proxy_request_buffering off;
    }
  }
}
`,
  )
  return startProgram('nginx', ['-p', directory, '-c', file], port)
}

export async function startHaproxy(upstream: string): Promise<Child> {
  const port = await freePort()
  const file = join(scratchDirectory(), `haproxy-${port}.cfg`)
  writeFileSync(
    file,
    `global
  nbthread 1
  maxconn 4096
defaults
  mode http
  timeout connect 5s
  timeout client 60s
  timeout server 60s
  option forwardfor
  http-reuse always
listen proxy
  bind 127.0.0.1:${port} backlog 4096
  server a ${new URL(upstream).host}
`,
  )
  return startProgram('haproxy', ['-db', '-f', file], port)
}

export async function startCaddy(upstream: string): Promise<Child> {
  const port = await freePort()
  const file = join(scratchDirectory(), `Caddyfile-${port}`)
  writeFileSync(
    file,
    `{
  admin off
  auto_https off
  persist_config off
}
http://127.0.0.1:${port} {
  bind 127.0.0.1
  reverse_proxy ${new URL(upstream).host}
}
`,
  )
  return startProgram('caddy', ['run', '--adapter', 'caddyfile', '--config', file], port)
}

/** nginx with its cache on a file system; what is hot comes from the page cache. */
/** @param options with a `maxSize` it gets the processes that see to it */
export async function startNginxCache(upstream: string, { maxSize }: { readonly maxSize?: string } = {}): Promise<Child> {
  const port = await freePort()
  const directory = scratchDirectory()
  const file = join(directory, `nginx-cache-${port}.conf`)
  writeFileSync(
    file,
    `daemon off; ${maxSize === undefined ? 'master_process off' : 'user root; worker_processes 1'}; pid ${file}.pid; error_log stderr crit; worker_rlimit_nofile 16384;
events { worker_connections 4096; }
http {
  access_log off; server_tokens off;
  client_body_temp_path ${directory}/b; proxy_temp_path ${directory}/p; fastcgi_temp_path ${directory}/f; uwsgi_temp_path ${directory}/u; scgi_temp_path ${directory}/s;
  keepalive_timeout 3600s; keepalive_requests 1000000000;
  proxy_cache_path ${directory}/cache-${port} levels=1:2 keys_zone=hot:64m max_size=${maxSize ?? '1g'} inactive=1h use_temp_path=off manager_files=10000 manager_sleep=5ms;
  upstream pool { server ${new URL(upstream).host}; keepalive 1024; }
  server {
    listen 127.0.0.1:${port} backlog=4096;
    location / {
      proxy_pass http://pool; proxy_http_version 1.1; proxy_set_header Connection "";
      proxy_cache hot; proxy_cache_valid 200 1h; proxy_cache_lock on;
    }
  }
}
`,
  )
  return startProgram('nginx', ['-p', directory, '-c', file], port)
}

export async function startVarnish(upstream: string, size = '256m'): Promise<Child> {
  const port = await freePort()
  const directory = join(scratchDirectory(), `varnish-${port}`)
  return startProgram(
    'varnishd',
    [
      '-F',
      '-n',
      directory,
      '-a',
      `127.0.0.1:${port}`,
      '-b',
      new URL(upstream).host,
      '-s',
      `malloc,${size}`,
      '-t',
      '3600',
      '-p',
      'listen_depth=4096',
    ],
    port,
  )
}
