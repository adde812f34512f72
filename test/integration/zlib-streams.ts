/** Whether streams of node:zlib, which hold memory outside the heap, have let go of it. */
import { createHook } from 'node:async_hooks'
import { onTestFinished } from 'vitest'

/** The streams of node:zlib that are made from now on, found by node's own record of them, and whether each has let go of its memory. */
export function zlibStreams(): { readonly made: () => number; readonly open: () => number } {
  const handles: object[] = []
  const hook = createHook({
    init(_id, type, _trigger, resource) {
      if (type === 'ZLIB') handles.push(resource)
    },
  }).enable()
  onTestFinished(() => void hook.disable())
  const isOpen = (handle: object): boolean => {
    const owner = Object.getOwnPropertySymbols(handle).find((symbol) => symbol.description === 'owner_symbol')
    const stream = owner === undefined ? undefined : (handle as Record<symbol, { _handle: unknown } | null>)[owner]
    return stream?._handle === handle
  }
  return { made: () => handles.length, open: () => handles.filter(isOpen).length }
}
