/** A shop with a real database behind a cache: pages are kept for ten minutes, and are new right after the database has committed. */
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { DatabaseSync } from 'node:sqlite'
import { responseCache } from '@weir/cache'
import { createProxy } from '@weir/core'

const database = new DatabaseSync(':memory:')
database.exec(`CREATE TABLE products (id INTEGER PRIMARY KEY, name TEXT, price INTEGER);
  INSERT INTO products VALUES (1, 'kettle', 30), (2, 'teapot', 45);`)
const all = database.prepare('SELECT * FROM products ORDER BY id')
const one = database.prepare('SELECT * FROM products WHERE id = ?')
const setPrice = database.prepare('UPDATE products SET price = ? WHERE id = ?')
let queries = 0

/** The API says what each answer is made of; it knows nothing of the cache. */
const api = createServer((req, res) => {
  queries++
  const id = /^\/products\/(\d+)$/.exec(req.url ?? '')?.[1]
  const found = id === undefined ? all.all() : one.get(Number(id))
  if (found === undefined) return void res.writeHead(404).end()
  const tags = id === undefined ? 'products' : `products, product-${id}`
  res.writeHead(200, { 'Content-Type': 'application/json', 'Cache-Control': 's-maxage=600', 'Cache-Tag': tags })
  res.end(JSON.stringify(found))
})
await new Promise<void>((resolve) => api.listen(0, '127.0.0.1', resolve))

const cache = responseCache({ maxSize: '16MiB' })
await using proxy = createProxy({ upstreams: [`http://127.0.0.1:${(api.address() as AddressInfo).port}`], use: [cache] })

async function show(url: string): Promise<void> {
  const response = await proxy.inject({ url })
  console.log(`${url}: ${response.text()}  (${response.headers.get('cache-status')})`)
}

/** A job of the same service. When it resolves, nobody sees the old price any more. */
async function reprice(id: number, price: number): Promise<void> {
  setPrice.run(price, id)
  console.log(`price of ${id} is ${price} now: ${await cache.invalidateTag([`product-${id}`, 'products'])} pages forgotten`)
}

for (const url of ['/products', '/products/1', '/products/2', '/products', '/products/1']) await show(url)
await reprice(1, 25)
for (const url of ['/products', '/products/1', '/products/2', '/products/2']) await show(url)
console.log(`${queries} requests reached the API`)
if (queries !== 6) throw new Error('the cache did not do what this example says')
api.close()
