import { homedir } from 'node:os'
import { describe, expect, it } from 'vitest'
import { commandsOf, fenceProblem, type Known, shellProblem } from './docs-code.ts'
import { differences } from './docs-errors.ts'
import { brokenLinks } from './docs-links.ts'
import { type Page, parsePage, slugOf } from './markdown.ts'
import { machineTraces } from './tracked-files.ts'
import { root } from './workspace.ts'

const page = (...lines: string[]): Page => parsePage(lines.join('\n'))

describe('fences', () => {
  it('are found with language, words, code and line, also indented and inside longer fences', () => {
    const { fences } = page(
      '# T',
      '```ts run',
      'const a = 1',
      '',
      '```',
      '- item',
      '  ```sh',
      '  npm test',
      '  ```',
      '````md',
      '```ts',
      '```',
      '````',
    )
    expect(fences).toEqual([
      { language: 'ts', info: ['run'], code: 'const a = 1\n', line: 3 },
      { language: 'sh', info: [], code: 'npm test', line: 8 },
      { language: 'md', info: [], code: '```ts\n```', line: 11 },
    ])
  })

  it('cannot hide from the compiler', () => {
    const problem = (text: string): string | undefined => fenceProblem(page(`\`\`\`${text}`, '```').fences[0] as Page['fences'][number])
    expect(problem('ts')).toBeUndefined()
    expect(problem('ts run')).toBeUndefined()
    expect(problem('json')).toBeUndefined()
    expect(problem('ts ignore')).toContain('ts ignore')
    for (const language of ['typescript', 'js', 'javascript', 'mjs']) expect(problem(language)).toContain(language)
  })
})

describe('commands', () => {
  const known: Known = { scripts: new Set(['start', 'test', 'bench']), packages: new Set(['@weir/core', '@weir/cache', 'ioredis']) }
  it.each([
    'npm start',
    'npm test',
    '$ npm run bench -- --quick',
    'pnpm bench',
    'npm install @weir/core@0.1 ioredis',
    'pnpm install',
    'curl -v localhost | jq',
    'npm i -D @weir/cache # comment',
  ])('accepts %s', (line) => expect(shellProblem(line, known)).toBeUndefined())
  it.each(['npm run banch', 'pnpm benchmark', 'npm install @weir/coer', 'npm test && npm run nothing', 'pnpm add left-pad'])(
    'refuses %s',
    (line) => expect(shellProblem(line, known)).toBeDefined(),
  )
})

describe('commands of a page', () => {
  it('stand in shell fences and in inline code, each with its line', () => {
    const text = page('Run `npm test`', 'or `a', 'b`.', '```sh', 'npm start', '', 'npm run x', '```', '```json', 'npm', '```')
    expect(commandsOf(text)).toEqual([
      { code: 'npm start', line: 5 },
      { code: '', line: 6 },
      { code: 'npm run x', line: 7 },
      { code: 'npm test', line: 1 },
      { code: 'a\nb', line: 2 },
    ])
  })
})

describe('links', () => {
  const exists = (path: string): boolean => ['README.md', 'docs/a.md', 'LICENSE'].includes(path)
  const broken = (...lines: string[]): string[] =>
    brokenLinks(
      new Map([
        ['docs/a.md', page(...lines)],
        ['README.md', page('# Weir', '## Life of a `request`', '## Life of a request', '<a id="here"></a>')],
      ]),
      exists,
    )

  it('resolve to files and headings, or the line is named', () => {
    expect(broken('[a](../README.md) [b](../README.md#life-of-a-request-1 "t") [c](../README.md#here) [d](https://x.test/y)')).toEqual([])
    expect(broken('', '[a](missing.md)')).toEqual([`docs/a.md:2 link 'missing.md': there is no docs/missing.md`])
    expect(broken('[a](../README.md#life)')[0]).toContain(`no heading '#life'`)
    expect(broken('[a](#mine)', '# Yours')[0]).toContain(`no heading '#mine'`)
    expect(broken('[a](../../elsewhere.md)')[0]).toContain('leaves the repository')
    expect(broken('[a](/docs/a.md)')[0]).toContain('root of a site')
  })

  it('are seen in references, HTML and wrapped text, and not in code', () => {
    expect(broken('[r]: gone.md')).toHaveLength(1)
    expect(broken('<img src="gone.png">')).toHaveLength(1)
    expect(broken('[text over', 'two lines](gone.md)')[0]).toMatch(/^docs\/a\.md:2 /)
    expect(broken('`[a](gone.md)` and', '```', '[a](gone.md)', '```')).toEqual([])
  })

  it('know the anchors that GitHub makes', () => {
    expect(slugOf('What it costs: a `Stage`, or two?')).toBe('what-it-costs-a-stage-or-two')
    expect(slugOf('§5.2 The [loop](x.md) & co_de')).toBe('52-the-loop--co_de')
  })
})

describe('the page of errors', () => {
  const table = { ERR_A: { status: 502, type: 'dns_error' }, ERR_B: { status: 499, type: undefined } }
  const text = (...rows: string[]): string => ['| Code | Source | Status | Type |', '|---|---|---|---|', ...rows].join('\n')

  it('agrees with the table, or each difference is named', () => {
    expect(differences(text('| `ERR_A` | x | 502 | `dns_error` |', '| `ERR_B` | x | 499 | – |'), table)).toEqual([])
    expect(differences(text('| `ERR_A` | x | 502 | `dns_error` |'), table)).toEqual(['docs/errors.md does not list ERR_B'])
    expect(
      differences(
        text('| `ERR_A` | x | 503 | `dns_timeout` |', '| `ERR_B` | x | 499 | |', '| ERR_C | x | 1 | |', '| ERR_B | x | 499 | - |'),
        table,
      ),
    ).toEqual([
      `docs/errors.md:3 ERR_A has status 502, not '503'`,
      `docs/errors.md:3 ERR_A has type dns_error, not 'dns_timeout'`,
      'docs/errors.md:5 ERR_C is not in the error table',
      'docs/errors.md:6 ERR_B is listed twice',
    ])
  })
})

describe('traces of a machine', () => {
  const slash = '/'
  it.each([
    `see ${slash}home${slash}ann/weir/x.ts`,
    `'${slash}root${slash}x'`,
    `"${slash}Users${slash}ann/x"`,
    `${'C:'}\\Users\\ann`,
    root,
    `${homedir()}/x`,
    `tarball: https:${slash}/registry${'.'}npmjs.org/x/-/x-1.tgz`,
    `https:${slash}/artifactory${'.'}corp.test/npm/`,
  ])('finds %s', (line) => expect(machineTraces('a.ts', `\n${line}\n`)[0]).toMatch(/^a\.ts:2 /))

  it.each(['http://a.test/root/x', '/tmp/x', './home/x/y', 'a registry.', "'/worker/x'"])('leaves %s alone', (line) =>
    expect(machineTraces('a.ts', line)).toEqual([]),
  )
})
