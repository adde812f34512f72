/**
 * Every relative link of the docs leads to a file that exists, and every anchor to a heading that exists. Links to other sites are not
 * fetched: a check that depends on strangers' servers fails for strangers' reasons.
 */
import { existsSync } from 'node:fs'
import { join, posix } from 'node:path'
import { pages } from './docs-code.ts'
import { type Page, parsePage } from './markdown.ts'
import { type Check, standalone } from './report.ts'
import { read, root } from './workspace.ts'

/** @returns one line `file:line message` per link that leads nowhere */
export function brokenLinks(docs: ReadonlyMap<string, Page>, exists: (path: string) => boolean): string[] {
  const broken: string[] = []
  for (const [path, page] of docs) {
    for (const { target, line } of page.links) {
      if (/^(?:[a-z][a-z0-9+.-]*:|\/\/)/i.test(target)) continue
      const [file = '', anchor] = decodeURI(target).split('#')
      const say = (reason: string): void => void broken.push(`${path}:${line} link '${target}': ${reason}`)
      if (file.startsWith('/')) {
        say('starts at the root of a site; write it relative to the page')
        continue
      }
      const goal = file === '' ? path : posix.normalize(posix.join(posix.dirname(path), file))
      if (goal.startsWith('..')) say('leaves the repository')
      else if (!exists(goal)) say(`there is no ${goal}`)
      else if (anchor !== undefined && goal.endsWith('.md') && !docs.get(goal)?.anchors.has(anchor))
        say(`${goal} has no heading '#${anchor}'`)
    }
  }
  return broken
}

export const docsLinks: Check = {
  name: 'docs: links',
  proves: 'every relative link and anchor resolves',
  async run(report) {
    const docs = new Map(pages().map((path) => [path, parsePage(read(path))]))
    for (const line of brokenLinks(docs, (path) => existsSync(join(root, path)))) report.fail(line)
    report.note(`${docs.size} pages, ${[...docs.values()].reduce((sum, page) => sum + page.links.length, 0)} links`)
  },
}

if (import.meta.main) await standalone(docsLinks)
