/** An upgrade in the making: a client's connection as an HTTP server hands it over, and upstreams that say 101. */
import { once } from 'node:events'
import { type AddressInfo, createServer, type Socket } from 'node:net'
import type { UpgradeRequest, Upstream } from '@weir/core'
import { type RawConnection, rawConnect } from '../../raw-client.ts'
import type { RawUpstream, UpstreamScript } from '../../raw-upstream.ts'
import { noDeadline } from '../../watch.ts'
import { UpgradeRecorder } from './recorder.ts'
import { type Rig, timeouts } from './rig.ts'

export const switching: string =
  'HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: x=\r\n\r\n'
export const answer: readonly string[] = ['Upgrade', 'websocket', 'Connection', 'Upgrade', 'X-Mine', '\xe4']
export const answered: string = 'HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nX-Mine: \xe4\r\n\r\n'

/** Says 101, with `first` right behind it, and then sends back what it gets until the other side ends. */
export const echo =
  (first = ''): UpstreamScript =>
  async (connection) => {
    await connection.readRequest()
    await connection.send(switching + first)
    for (;;) await connection.send(await connection.readBytes(1, noDeadline))
  }

export interface Upgrading {
  readonly recorder: UpgradeRecorder
  /** The client's end of its connection. */
  readonly far: RawConnection
  /** The proxy's end, which the transport is given. */
  readonly near: Socket
}

export async function upgrade(rig: Rig, to: RawUpstream | Upstream, request: Partial<UpgradeRequest> = {}): Promise<Upgrading> {
  const { far, near } = await clientConnection(rig)
  const recorder = rig.watch(new UpgradeRecorder())
  rig.transport.upgrade?.(
    {
      method: 'GET',
      path: '/',
      headers: ['Host', 'upstream.test', 'Sec-WebSocket-Version', '13', 'Sec-WebSocket-Key', 'dGhlIHNhbXBsZSBub25jZQ=='],
      protocol: 'websocket',
      client: near,
      timeouts,
      ...request,
    },
    'id' in to ? to : rig.at(to.url),
    recorder,
  )
  if (recorder.state === 'new') recorder.objections.push('upgrade returned without onStart')
  return { recorder, far, near }
}

/** A connection as an HTTP server hands it to `upgrade`: half-open allowed, nothing read. */
async function clientConnection(rig: Rig): Promise<{ far: RawConnection; near: Socket }> {
  const server = createServer({ allowHalfOpen: true, pauseOnConnect: true, noDelay: true })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  const accepted = once(server, 'connection') as Promise<[Socket]>
  const far = await rawConnect((server.address() as AddressInfo).port)
  const [near] = await accepted
  near.on('error', () => {})
  rig.defer(() => {
    far.destroy()
    near.destroy()
    server.close()
  })
  return { far, near }
}
