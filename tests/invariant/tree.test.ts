import { existsSync, readdirSync, readFileSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { describe, expect, it } from 'vitest';

const root = fileURLToPath(new URL('../../', import.meta.url));

/** The paths of the block marked `tree`; folders end with a slash, two spaces indent. */
function treeOf(readme: string): string[] {
  const block = /^```tree\n(.*?)^```$/msu.exec(readFileSync(join(root, readme), 'utf8'))?.[1] ?? '';
  const above: string[] = [];
  return block
    .trimEnd()
    .split('\n')
    .map((line) => {
      const [, indent = '', name = ''] = /^( *)(\S+)/u.exec(line) ?? [];
      above.splice(indent.length / 2, Infinity, name);
      return above.join('');
    });
}

const isFolder = (path: string): boolean => statSync(join(root, path)).isDirectory();

describe.each(['README.md', 'README.zh.md'])('the tree in %s', (readme) => {
  const tree = treeOf(readme);

  it('names only what exists, folders as folders', () => {
    expect(tree.length).toBeGreaterThan(30);
    expect(tree.filter((path) => !existsSync(join(root, path)))).toEqual([]);
    expect(tree.filter((path) => path.endsWith('/') !== isFolder(path))).toEqual([]);
  });

  it.each(['src', 'tests'])('has every entry of %s/', (folder) => {
    const entries = readdirSync(join(root, folder), { withFileTypes: true })
      .filter(({ name }) => !name.includes('.test.'))
      .map((entry) => `${folder}/${entry.name}${entry.isDirectory() ? '/' : ''}`);
    expect(entries.filter((path) => !tree.includes(path))).toEqual([]);
  });

  it('links only to files that exist', () => {
    const links = [...readFileSync(join(root, readme), 'utf8').matchAll(/(?<!!)\[[^\]]*\]\((?!https?:)([^)#]+)\)/gu)];
    expect(links.map(([, path]) => path!).filter((path) => !existsSync(join(root, path)))).toEqual([]);
  });
});
