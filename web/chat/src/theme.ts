// Light, dark, or as the system is. index.html applies the stored choice before the first paint.
import { part } from './dom.ts';
import { read, write } from './stored.ts';

type Theme = 'system' | 'light' | 'dark';
const NEXT: Record<Theme, Theme> = { system: 'light', light: 'dark', dark: 'system' };
const NAMES: Record<Theme, string> = { system: 'as the system', light: 'light', dark: 'dark' };

export function startTheme(): void {
  const button = part('theme');
  let theme = read<Theme>('theme', 'system');
  const show = () => {
    if (theme === 'system') delete document.documentElement.dataset['theme'];
    else document.documentElement.dataset['theme'] = theme;
    const label = `Colours: ${NAMES[theme]}. Change`;
    button.setAttribute('aria-label', label);
    button.title = label;
    button.querySelector('use')!.setAttribute('href', `#i-theme-${theme}`);
  };
  button.addEventListener('click', () => {
    theme = NEXT[theme];
    write('theme', theme === 'system' ? null : theme);
    show();
  });
  show();
}
