import { mkdir, mkdtemp, readdir, rm, writeFile } from 'node:fs/promises';
import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { ENTRIES } from '../../src/cli/commands.js';
import { spawnCli, WAITING } from './spawn-cli.js';

let cwd: string;
beforeEach(async () => {
  cwd = await mkdtemp(join(tmpdir(), 'duanzi-e2e-'));
});
afterEach(() => rm(cwd, { recursive: true }));

async function writeRows(): Promise<void> {
  await mkdir(join(cwd, 'rows'));
  const rows = Array.from({ length: 40 }, (_, i) => `标题${i},甲${i},乙${i},甲${i}遇见乙${i}笑了`);
  await writeFile(join(cwd, 'rows/sft_train.csv'), ['\ufeffheadline,word1,word2,joke', ...rows].join('\r\n'));
}

describe('duanzi', () => {
  it('--help lists every command and --version says the version', async () => {
    const help = await spawnCli(['--help'], { cwd });
    expect(help).toMatchObject({ code: 0, stderr: '' });
    for (const { name } of ENTRIES) for (const part of name.split(' ')) expect(help.stdout).toContain(part);
    expect(await spawnCli(['--version'], { cwd })).toMatchObject({ code: 0, stdout: '0.1.0\n' });
  });

  it.each([
    [['dta'], /There is no command "dta"\.[\s\S]*Did you mean duanzi data\?/],
    [['data', 'chekc'], /There is no command "data chekc"\.[\s\S]*Did you mean duanzi data check\?/],
    [['data', 'check', '--quite'], /Unknown option '--quite'\.[\s\S]*--quiet/],
  ])('%j exits 2 with the nearest', async (argv, message) => {
    const { code, stdout, stderr } = await spawnCli(argv, { cwd });
    expect({ code, stdout }).toEqual({ code: 2, stdout: '' });
    expect(stderr).toMatch(message);
    expect(stderr).not.toMatch(/^\s+at /m);
  });
});

describe('faults of the input', () => {
  it('an unknown key names the nearest, the file and the line', async () => {
    await writeFile(join(cwd, 'r.yaml'), 'seed: 1\ndata:\n  validationFration: 0.1\n');
    const { code, stderr } = await spawnCli(['data', 'check', 'rows', '--config', 'r.yaml'], { cwd });
    expect(code).toBe(2);
    expect(stderr).toMatch(/data\.validationFration is not a known key/);
    expect(stderr).toMatch(/r\.yaml:3:3/);
    expect(stderr).toMatch(/Did you mean data\.validationFraction\?/);
  });

  it('bad YAML names the line', async () => {
    await writeFile(join(cwd, 'r.yaml'), 'seed: 1\ndata: [\n');
    const { code, stderr } = await spawnCli(['data', 'check', '--config', 'r.yaml'], { cwd });
    expect(code).toBe(2);
    expect(stderr).toMatch(/not valid YAML[\s\S]*r\.yaml:\d/);
  });

  it('with --json stdout gets the error as an object', async () => {
    const { code, stdout, stderr } = await spawnCli(['data', 'check', 'none', '--json'], { cwd });
    expect(code).toBe(2);
    const { error } = JSON.parse(stdout) as { error: Record<string, string> };
    expect(error).toMatchObject({ code: 'data.missing-folder', where: join(cwd, 'none') });
    expect(error['fix']).toBeTruthy();
    expect(stderr).toMatch(/^Error: The data folder does not exist/);
  });

  it('a bug exits 1 with its stack', async () => {
    const argv = ['rm', '--model', 'm', '--set', 'data.dir=d'];
    const { code, stderr } = await spawnCli(argv, { script: WAITING, cwd });
    expect(code).toBe(1);
    expect(stderr).toMatch(/TypeError: this is no function\n\s+at [\s\S]*This is a bug in duanzi/);
  });
});

describe('data', () => {
  it('check describes a folder, as text and as a document', async () => {
    await writeRows();
    const text = await spawnCli(['data', 'check', 'rows'], { cwd });
    expect(text).toMatchObject({ code: 0, stderr: '' });
    expect(text.stdout).toMatch(/rows +40 \(40 headlines, 80 prompts\)/);
    const json = await spawnCli(['data', 'check', '--set', 'data.file=rows/sft_train.csv', '--json'], { cwd });
    expect(JSON.parse(json.stdout)).toMatchObject({ files: [{ name: 'sft_train', rows: 40 }] });
  });

  it('split writes both sides once', async () => {
    await writeRows();
    const argv = ['data', 'split', 'rows', '--out', 'sides', '--set', 'data.validationFraction=0.5', '--json'];
    const { code, stdout } = await spawnCli(argv, { cwd });
    expect(code).toBe(0);
    const { files } = JSON.parse(stdout) as { files: { path: string; rows: number }[] };
    expect(files.reduce((sum, { rows }) => sum + rows, 0)).toBe(40);
    expect(await readdir(join(cwd, 'sides'))).toHaveLength(3);
    const again = await spawnCli(argv, { cwd });
    expect(again.code).toBe(2);
    expect(again.stderr).toMatch(/output folder is not empty/);
  });
});

describe('Ctrl-C', () => {
  const argv = (name: string): string[] => [name, '--model', 'm', '--rm', 'r', '--set', 'data.dir=d', '--out', 'o'];

  it.each(['SIGINT', 'SIGTERM'] as const)('%s lets the stage save and exits 130', async (signal) => {
    let sent = false;
    const { code, stderr } = await spawnCli(
      argv('sft').filter((part) => part !== '--rm' && part !== 'r'),
      {
        script: WAITING,
        cwd,
        onStderr: (all, kill) => {
          if (sent || !all.includes('waiting →')) return;
          sent = true;
          kill(signal);
        },
      },
    );
    expect(code).toBe(130);
    expect(stderr).toMatch(/checkpoint of step 7/);
    expect(stderr).toMatch(/Interrupted after step 7\. .*--resume/);
  });

  it('twice leaves at once', async () => {
    let sent = 0;
    const { code } = await spawnCli(argv('grpo'), {
      script: WAITING,
      cwd,
      onStderr: (all, kill) => {
        const due = all.includes('once more to leave') ? 2 : all.includes('waiting →') ? 1 : 0;
        for (; sent < due; sent += 1) kill('SIGINT');
      },
    });
    expect(code).toBe(130);
  });

  it('during a download leaves what has arrived', async () => {
    const server: Server = createServer((_, response) => {
      response.writeHead(200, { 'content-length': '1962008' }).write('x'.repeat(1000));
    });
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
    try {
      const from = `http://127.0.0.1:${(server.address() as AddressInfo).port}/`;
      let sent = false;
      const { code, stderr } = await spawnCli(['data', 'pull', 'rows', '--from', from], {
        cwd,
        onStderr: (all, kill) => {
          if (sent || !all.includes('fetching sft_train.csv')) return;
          sent = true;
          kill('SIGINT');
        },
      });
      expect(code).toBe(130);
      expect(stderr).toMatch(/Interrupted\./);
      expect(await readdir(join(cwd, 'rows'))).toEqual(['sft_train.csv.part']);
    } finally {
      server.closeAllConnections();
      server.close();
    }
  });
});

describe('a reader that leaves', () => {
  it('stops the stage as if asked to', async () => {
    const argv = ['sft', '--model', 'm', '--set', 'data.dir=d', '--json'];
    const { code, stderr } = await spawnCli(argv, { script: WAITING, cwd, leaveStdout: true });
    expect(stderr).not.toMatch(/EPIPE/);
    expect(code).toBe(130);
  });
});
