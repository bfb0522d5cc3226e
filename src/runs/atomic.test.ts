import { type ChildProcess, spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import fc from 'fast-check';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { writeFileAtomic, writeFolderAtomic } from './atomic.js';
import { claimTemporary, isTemporaryName, recoverLeftovers, release } from './leftovers.js';

let folder: string;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'duanzi-atomic-'));
});
afterEach(() => {
  rmSync(folder, { recursive: true, force: true });
});

/** The name that a process which is no longer there would have used. */
function nameOfDeadProcess(target: string, kind: 'tmp' | 'old'): string {
  const { pid } = spawnSync(process.execPath, ['-e', '']);
  return `.${target}.${kind}-${pid}-0123abcd`;
}

describe('writeFileAtomic', () => {
  it('writes text and bytes, makes parents, replaces, and leaves nothing beside', async () => {
    const path = join(folder, 'a', 'b.txt');
    await writeFileAtomic(path, '段子');
    expect(readFileSync(path, 'utf8')).toBe('段子');
    await writeFileAtomic(path, Uint8Array.of(1, 2, 3));
    expect([...readFileSync(path)]).toEqual([1, 2, 3]);
    expect(readdirSync(join(folder, 'a'))).toEqual(['b.txt']);
  });

  it('writes whatever bytes it is given', async () => {
    await fc.assert(
      fc.asyncProperty(fc.uint8Array({ maxLength: 2000 }), async (bytes) => {
        await writeFileAtomic(join(folder, 'x'), bytes);
        expect(new Uint8Array(readFileSync(join(folder, 'x')))).toEqual(bytes);
      }),
      { numRuns: 20 },
    );
  });

  it('keeps the old content and says where and why when it cannot write', async () => {
    writeFileSync(join(folder, 'file'), 'content');
    await expect(writeFileAtomic(join(folder, 'file', 'below'), 'x')).rejects.toMatchObject({
      name: 'UserError',
      code: 'file.unwritable',
      exitCode: 2,
      where: join(folder, 'file', 'below'),
    });
    mkdirSync(join(folder, 'taken', 'inside'), { recursive: true });
    await expect(writeFileAtomic(join(folder, 'taken'), 'x')).rejects.toMatchObject({ code: 'file.unwritable' });
    expect(readFileSync(join(folder, 'file'), 'utf8')).toBe('content');
    expect(readdirSync(folder).sort()).toEqual(['file', 'taken']);
  });

  it('lets concurrent writers of one file finish, each whole', async () => {
    const contents = Array.from({ length: 8 }, (_, i) => String(i).repeat(10_000));
    await Promise.all(contents.map((content) => writeFileAtomic(join(folder, 'x'), content)));
    expect(contents).toContain(readFileSync(join(folder, 'x'), 'utf8'));
    expect(readdirSync(folder)).toEqual(['x']);
  });
});

describe('writeFolderAtomic', () => {
  const build = (content: string) => (path: string) => {
    mkdirSync(join(path, 'deep'));
    writeFileSync(join(path, 'a'), content);
    writeFileSync(join(path, 'deep', 'b'), content);
    return Promise.resolve();
  };

  it('shows the folder only when it is complete', async () => {
    const target = join(folder, 'new', 'model');
    await writeFolderAtomic(target, async (path) => {
      await build('1')(path);
      expect(existsSync(target)).toBe(false);
    });
    expect(readFileSync(join(target, 'deep', 'b'), 'utf8')).toBe('1');
  });

  it('replaces the whole folder, keeping nothing of the old one', async () => {
    const target = join(folder, 'model');
    await writeFolderAtomic(target, build('1'));
    writeFileSync(join(target, 'stale'), '');
    await writeFolderAtomic(target, async (path) => {
      await build('2')(path);
      expect(readFileSync(join(target, 'a'), 'utf8')).toBe('1');
    });
    expect(readdirSync(target).sort()).toEqual(['a', 'deep']);
    expect(readFileSync(join(target, 'a'), 'utf8')).toBe('2');
    expect(readdirSync(folder)).toEqual(['model']);
  });

  it('leaves the old folder when building fails, and passes the error on', async () => {
    const target = join(folder, 'model');
    await writeFolderAtomic(target, build('1'));
    const failure = new Error('no such tensor');
    await expect(writeFolderAtomic(target, () => Promise.reject(failure))).rejects.toBe(failure);
    expect(readFileSync(join(target, 'a'), 'utf8')).toBe('1');
    expect(readdirSync(folder)).toEqual(['model']);
  });

  it('refuses to replace a file by a folder', async () => {
    writeFileSync(join(folder, 'model'), 'mine');
    await expect(writeFolderAtomic(join(folder, 'model'), build('1'))).rejects.toMatchObject({ exitCode: 2 });
    expect(readFileSync(join(folder, 'model'), 'utf8')).toBe('mine');
  });

  it('leaves a whole folder when the process is killed while it replaces one again and again', async () => {
    const target = join(folder, 'model');
    const child = replaceForever(target);
    const exited = once(child, 'exit');
    await once(child.stdout!, 'data');
    child.kill('SIGKILL');
    await exited;
    await recoverLeftovers(folder);
    expect(readdirSync(folder)).toEqual(['model']);
    expect(readFileSync(join(target, 'a'), 'utf8')).toBe(readFileSync(join(target, 'b'), 'utf8'));
  });
});

/** A process that writes `target` with two equal files over and over and prints a line after the twentieth time. */
function replaceForever(target: string): ChildProcess {
  const program = `
    import { writeFileSync } from 'node:fs';
    const { writeFolderAtomic } = await import(${JSON.stringify(new URL('atomic.ts', import.meta.url).href)});
    for (let n = 0; ; n++) {
      await writeFolderAtomic(${JSON.stringify(target)}, async (folder) => {
        for (const name of ['a', 'b']) writeFileSync(folder + '/' + name, String(n));
      });
      if (n === 20) console.log('replaced');
    }`;
  return spawn(process.execPath, ['--import', 'tsx', '--input-type=module', '-e', program], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
}

describe('recoverLeftovers', () => {
  it('removes what was being written, restores what was moved aside, and touches nothing else', async () => {
    const names = [nameOfDeadProcess('weights.safetensors', 'tmp'), nameOfDeadProcess('adapter', 'old')];
    for (const name of names) mkdirSync(join(folder, name));
    writeFileSync(join(folder, names[1]!, 'adapter_config.json'), '{}');
    writeFileSync(join(folder, '.hidden.tmp'), 'mine');
    expect(await recoverLeftovers(folder)).toEqual(['adapter']);
    expect(readdirSync(folder).sort()).toEqual(['.hidden.tmp', 'adapter']);
    expect(readdirSync(join(folder, 'adapter'))).toEqual(['adapter_config.json']);
  });

  it('removes a folder moved aside whose replacement is in place', async () => {
    mkdirSync(join(folder, nameOfDeadProcess('adapter', 'old')));
    mkdirSync(join(folder, 'adapter'));
    writeFileSync(join(folder, 'adapter', 'new'), '');
    expect(await recoverLeftovers(folder)).toEqual([]);
    expect(readdirSync(folder)).toEqual(['adapter']);
    expect(readdirSync(join(folder, 'adapter'))).toEqual(['new']);
  });

  it('leaves alone what this process or another running one is writing, but not what an earlier one of its number left', async () => {
    const ours = claimTemporary(join(folder, 'x'), 'tmp');
    writeFileSync(ours, '');
    writeFileSync(join(folder, `.y.tmp-${process.ppid}-0123abcd`), '');
    writeFileSync(join(folder, `.z.tmp-${process.pid}-0123abcd`), '');
    await recoverLeftovers(folder);
    expect(readdirSync(folder)).toHaveLength(2);
    release(ours);
    await recoverLeftovers(folder);
    expect(readdirSync(folder)).toEqual([`.y.tmp-${process.ppid}-0123abcd`]);
  });

  it('finds nothing in a folder that does not exist', async () => {
    expect(await recoverLeftovers(join(folder, 'none'))).toEqual([]);
  });

  it('knows the names of temporaries and no others', () => {
    expect(isTemporaryName('.model.safetensors.tmp-12-0123abcd')).toBe(true);
    expect(['.gitignore', 'x.tmp-12-0123abcd', '.x.tmp', '.x.tmp-12-xyz'].filter(isTemporaryName)).toEqual([]);
  });
});
