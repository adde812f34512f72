/** Sessions that stay on their server: a signed cookie, a server that drains, one that dies, and a second proxy that shares only the secret. */
import { createPool, createProxy, failureMemory } from '@weir/core'
import { stickySession } from '@weir/sticky'
import { testUpstream } from '@weir/testing'

await using a = await testUpstream({ '*': 'a' })
await using b = await testUpstream({ '*': 'b' })
await using c = await testUpstream({ '*': 'c' })
const upstreams = { a, b, c }

// In earnest: from the environment, made with `openssl rand -base64 32`.
const secret = 'only for this example: make one with openssl'
const members = Object.entries(upstreams).map(([id, { url }]) => ({ id, url }))
const pool = createPool({ upstreams: members, health: [failureMemory()] })
const sticky = stickySession({ secret, idle: '30m' })
await using proxy = createProxy({ pool, use: [sticky] })
await using other = createProxy({ upstreams: members.toReversed(), use: [stickySession({ secret, idle: '30m' })] })

/** A client that keeps its cookie, as browsers do. */
class Client {
  #cookie: string | undefined

  async visit(times: number, through = proxy): Promise<string> {
    let story = ''
    for (let i = 0; i < times; i++) {
      const headers = { Host: 'localhost', ...(this.#cookie === undefined ? {} : { Cookie: this.#cookie }) }
      const response = await through.inject({ url: '/', headers })
      const set = response.headers.get('set-cookie')
      if (set !== undefined) this.#cookie = set.split(';')[0] as string
      story += ` ${response.text()}${set === undefined ? '' : ' (new cookie)'}`
    }
    return story
  }
}

const [ann, ben] = [new Client(), new Client()]
console.log('Ann:', await ann.visit(5))
console.log('Ben:', await ben.visit(5))
console.log('Ann through the other proxy:', await ann.visit(3, other))

const home = (await ann.visit(1)).trim() as keyof typeof upstreams
void pool.drain(home)
console.log(`${home} drains. Ann:`, await ann.visit(3), '- somebody new:', await new Client().visit(2))

await upstreams[home].kill()
console.log(`${home} dies. Ann:`, await ann.visit(4))
console.log('Ben:', await ben.visit(3))
console.log(sticky.stats())
await pool.close()
