export type { FromPrimaryOptions } from './from-primary.ts'
export { fromPrimary } from './from-primary.ts'
export type { ServedStores, StoreService } from './serve-stores.ts'
export { serveStores } from './serve-stores.ts'
